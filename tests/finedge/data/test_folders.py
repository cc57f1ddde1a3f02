"""Folders: hidden ones, those of tools, links, names of splits, groups, levels of archives."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from finedge.data import SPLITS, open_dataset, read_folder
from finedge.data.walk import pictures_below
from finedge.errors import DataError
from finedge.runtime.sources import open_source
from tests.finedge.data.conftest import draw

THREE = {"daisy": 3, "rose": 3, "tulip": 3}


def sizes(data) -> list[int]:
    return [len(data.splits.get(s, ())) for s in SPLITS]


def left(data) -> dict[str, int]:
    return {x.reason: x.count for x in data.left_out}


@pytest.mark.parametrize(
    "tool",
    [
        ".ipynb_checkpoints",
        "@eaDir",
        "__MACOSX",
        ".thumbnails",
        "lost+found",
        "$RECYCLE.BIN",
        ".hidden",
    ],
)
@pytest.mark.parametrize("where", ["daisy", ".", "daisy/deep"])
def test_what_tools_leave_is_no_data_at_any_depth_and_is_counted(folder, tool, where):
    root = folder(THREE)
    (root / "daisy" / "deep").mkdir()
    draw(root / "daisy" / "deep" / "more.png")
    draw(root / where / tool / "0.png", seed="copy")
    draw(root / where / tool / "SYNO" / "1.png", seed="copy")
    data = read_folder(root)
    assert sizes(data) == [10, 0, 0]
    assert sum(left(data).values()) == 2
    assert any(tool in name for x in data.left_out for name in x.examples)
    assert len(pictures_below(root)[0]) == 10


@pytest.mark.parametrize(
    "name",
    [
        "._0.png",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "notes.txt",
        "film.mp4",
        "photo.heic",
        "noname",
    ],
)
def test_a_file_that_is_no_picture_is_counted_by_its_reason(folder, name):
    root = folder(THREE)
    (root / "rose" / name).write_bytes(b"x")
    data = read_folder(root)
    assert sizes(data) == [9, 0, 0]
    assert [x.examples for x in data.left_out] == [(f"rose/{name}",)]


def test_what_is_left_out_is_said_and_recorded(folder, caplog):
    root = folder(THREE)
    (root / "rose" / "film.mp4").write_bytes(b"x")
    draw(root / "loose.png")
    with caplog.at_level("INFO", "finedge"):
        data = open_dataset(root)
    assert "1 x a picture beside the class folders: loose.png" in caplog.text
    assert "film.mp4" in caplog.text
    assert {x["reason"]: x["count"] for x in data.to_json()["left_out"]} == left(data)


def test_classify_reads_the_pictures_that_training_reads(folder, caplog):
    root = folder(THREE)
    draw(root / "rose" / "@eaDir" / "0.png", seed="copy")
    (root / "again").symlink_to(root / "rose")
    with caplog.at_level("INFO", "finedge"):
        names = {Path(f.name) for f in open_source(str(root))}
    assert names == {i.path for i in read_folder(root).splits["train"]}
    assert "rose/@eaDir" in caplog.text
    assert len(list(open_source(str(root / "**" / "*.png")))) == 9


# --- links ---


def test_links_are_followed_once_and_never_in_a_circle(folder, tmp_path):
    root = folder(THREE)
    shutil.move(root / "rose", tmp_path / "elsewhere")
    (root / "rose").symlink_to(tmp_path / "elsewhere")
    (root / "daisy" / "up").symlink_to(root)
    (root / "tulip" / "self").symlink_to(root / "tulip" / "self")
    (root / "tulip" / "gone.png").symlink_to(root / "nothing.png")
    (root / "tulip" / "link.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    data = read_folder(root)
    assert (data.labels, sizes(data)) == (("daisy", "rose", "tulip"), [10, 0, 0])
    assert left(data) == {"a link to a folder that is read anyway": 1, "a link to nothing": 2}


def test_splits_may_be_links_into_one_store(folder, tmp_path):
    root = folder(THREE, "all")
    for split in ("train", "test"):
        (root / split).mkdir()
        for label in THREE:
            (root / split / label).symlink_to(root / "all" / label)
    data = read_folder(root)
    assert sizes(data) == [9, 0, 9]
    assert left(data) == {"a picture outside the split folders": 9}


def test_a_pipe_is_no_picture(folder):
    root = folder(THREE)
    os.mkfifo(root / "rose" / "p.jpg")
    assert left(read_folder(root)) == {"not a regular file": 1}


# --- names of splits ---


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Validation", "Testing"),
        ("train", "valid", "test"),
        ("TRAIN", "VAL", "TEST"),
        ("Train_Set", "dev", "test set"),
    ],
)
def test_splits_are_known_as_people_write_them(folder, names):
    data = read_folder(folder(THREE, *names))
    assert (data.layout, data.labels, sizes(data)) == (
        "split-folders",
        ("daisy", "rose", "tulip"),
        [9, 9, 9],
    )
    assert all(
        name in " ".join(data.notes)
        for name, split in zip(names, SPLITS, strict=True)
        if name != split
    )


def test_a_class_may_hold_the_splits(folder):
    root = folder({"train": 4, "Test": 2}, "daisy", "rose")
    data = open_dataset(root)
    assert (data.labels, data.has_splits, sizes(data)[2]) == (("daisy", "rose"), True, 4)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "holdout"),
        ("Training", "evaluation"),
        ("train", "Train"),
        ("val", "valid", "train"),
        ("seg_train", "seg_test"),
    ],
)
def test_names_that_could_mean_several_splits_are_refused_by_name(folder, names):
    with pytest.raises(DataError) as error:
        open_dataset(folder(THREE, *names))
    assert all(name in str(error.value) for name in names[:2])


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Test"),
        ("train", "holdout"),
        ("train", "val", "test"),
        ("train_images", "test_images"),
    ],
)
def test_classes_that_look_like_splits_are_refused(folder, names):
    with pytest.raises(DataError, match="look like names of splits") as error:
        open_dataset(folder(dict.fromkeys(names, 5)))
    assert names[0] in str(error.value)


def test_a_train_is_a_class_among_vehicles(folder):
    assert open_dataset(folder({"bus": 5, "car": 5, "train": 5})).labels == ("bus", "car", "train")


def test_pictures_outside_the_splits_are_counted(folder):
    root = folder(THREE, "train", "test")
    draw(root / "unlabelled" / "deep" / "1.png")
    draw(root / "loose.png")
    draw(root / "train" / "beside.png")
    assert left(read_folder(root)) == {
        "a picture outside the split folders": 2,
        "a picture beside the class folders": 1,
    }


# --- levels ---


@pytest.mark.parametrize("inside", [(), ("train", "test")])
def test_an_archives_extra_level_is_entered_and_said(folder, inside, tmp_path):
    made = folder(THREE, *inside)
    deep = tmp_path / "root" / "flowers-v2" / "flowers"
    deep.parent.mkdir(parents=True)
    made.rename(deep)
    (tmp_path / "root" / "README.md").write_text("flowers")
    draw(tmp_path / "root" / "__MACOSX" / "flowers" / "._0.png")
    data = read_folder(tmp_path / "root")
    assert (data.root, data.labels, len(data.notes)) == (deep, ("daisy", "rose", "tulip"), 2)


def test_the_innermost_folders_are_the_classes_of_groups(folder):
    root = folder(
        {"gulls/herring": 3, "gulls/common": 3, "terns/arctic": 3, "terns/little/summer": 3},
        "train",
        "test",
    )
    data = read_folder(root)
    assert data.labels == ("arctic", "common", "herring", "summer")
    assert "gulls, terns" in data.notes[0]


def test_an_extra_level_in_each_split_is_entered_and_said(folder):
    root = folder({"train/daisy": 3, "train/rose": 3}, "train")
    folder({"test/daisy": 2, "test/rose": 2}, "test")
    data = read_folder(root)
    assert (data.labels, sizes(data)) == (("daisy", "rose"), [6, 0, 4])
    assert data.notes == ("train/train/ is entered", "test/test/ is entered")


def test_one_group_of_classes_at_several_depths(folder):
    root = folder({"fruit/apple/gala": 3, "fruit/banana": 3}, "train", "test")
    assert read_folder(root).labels == ("banana", "gala")


def test_a_class_that_stands_deeper_in_one_split_is_one_class_and_said(folder):
    folder({"plants/brown cap": 3, "fruit/kiwi": 3}, "train")
    data = read_folder(folder({"plants/mushroom/brown cap": 2, "fruit/kiwi": 2}, "test"))
    assert (data.labels, sizes(data)) == (("brown cap", "kiwi"), [6, 0, 4])
    assert "plants/brown cap, plants/mushroom/brown cap" in data.notes[-1]


def test_the_tree_of_grocery_store_has_the_classes_of_its_lists(shared_data, tmp_path):
    for split in SPLITS:
        (tmp_path / split).symlink_to(shared_data / "grocery240" / split)
    tree, lists = read_folder(tmp_path), read_folder(shared_data / "grocery240")
    assert sizes(tree) == sizes(lists) == [2640, 296, 2485]
    assert sorted(tree.labels) == sorted(lists.labels)


def test_folders_inside_class_folders_belong_to_the_class_and_are_said(folder):
    data = read_folder(folder({"crow": 3, "crow/young": 2, "finch": 3}))
    assert (data.labels, sizes(data)) == (("crow", "finch"), [8, 0, 0])
    assert "2 picture(s)" in data.notes[0]
    assert "crow/young" in data.notes[0]


@pytest.mark.parametrize(
    "counts",
    [
        {"crow/2024": 3, "finch/2024": 3},
        {"crow": 3, "finches/gold": 3},
        {"a/b": 3, "a/b/c": 3, "d/e": 3},
    ],
)
def test_folders_that_may_or_may_not_be_classes_are_refused(folder, counts):
    with pytest.raises(DataError, match=r"which folders of .* are classes"):
        open_dataset(folder(counts))


# --- names ---


def test_one_name_in_two_forms_of_unicode_is_one_class(folder):
    data = read_folder(folder({"caf\u00e9": 2, "cafe\u0301": 2, "tea": 2}, "train"))
    assert data.labels == ("caf\u00e9", "tea")
    assert "Unicode form" in " ".join(data.notes)


@pytest.mark.parametrize(("one", "other"), [("Crow", "crow"), ("crow", "crow "), ("A  b", "a b")])
def test_names_that_differ_in_case_or_blanks_only_are_refused(folder, one, other):
    with pytest.raises(DataError, match=f"{one}, {other}"):
        open_dataset(folder({one: 3, other: 3, "finch": 3}))


@pytest.mark.parametrize(
    "marks", [("run.json", "split.json"), ("manifest.json", "golden.npz")], ids=["run", "bundle"]
)
@pytest.mark.parametrize("splits", [(), ("train", "test")])
def test_a_run_or_bundle_in_the_data_folder_is_no_class(folder, marks, splits):
    root = folder({"crow": 6, "finch": 6}, *splits)
    before = read_folder(root)
    (root / "out").mkdir()
    for name in marks:
        (root / "out" / name).write_text("{}")
    draw(root / "out" / "looks" / "0.png")
    found = read_folder(root)
    assert (found.labels, found.splits) == (before.labels, before.splits)
    assert [left.reason for left in found.left_out] == ["a run or a bundle of finedge"]


def test_split_folders_within_split_folders_are_refused_with_a_fix(folder):
    root = folder({"seg_train/a": 2, "seg_train/b": 2}, "seg_train")
    folder({"seg_test/a": 2, "seg_test/b": 2}, "seg_test")
    folder({"seg_pred": 2}, "seg_pred")
    with pytest.raises(DataError) as error:
        read_folder(root)
    assert "seg_test, seg_train look like splits" in error.value.fix


@pytest.mark.parametrize("where", [b"rose/\xe9.png", b"caf\xe9/0.png"])
def test_a_name_that_is_no_unicode_is_refused_where_the_data_set_opens(folder, where):
    root = folder(THREE)
    path = root / os.fsdecode(where)
    path.parent.mkdir(exist_ok=True)
    shutil.copy(root / "rose" / "0.png", path)
    with pytest.raises(DataError, match=r"xe9.* is not Unicode"):
        open_dataset(root)


def test_an_empty_class_folder_is_refused_with_what_was_left_out(folder):
    root = folder(THREE)
    (root / "wren").mkdir()
    (root / "wren" / "1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no training image: wren.*heic"):
        open_dataset(root)
