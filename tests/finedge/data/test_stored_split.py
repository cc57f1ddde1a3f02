"""The cut that does not move, and the split that is stored by content."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from finedge.data import (
    SPLITS,
    content_digest,
    match_split,
    open_dataset,
    read_folder,
    select_images,
    split_of_dataset,
    with_labels,
)
from finedge.data.cut import _part_ends
from finedge.data.stored_split import StoredSplit, read_text, unpack, with_digests
from finedge.errors import DataError
from tests.finedge.data.conftest import draw

CLASSES = {"crow": 30, "finch": 20, "wren": 3}


def paths(data) -> dict[str, set[str]]:
    return {s: {str(i.path.relative_to(data.root)) for i in data.splits.get(s, ())} for s in SPLITS}


# --- the cut ---


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("more", [1, 7, 40])
def test_no_training_picture_becomes_val_or_test_when_others_come(folder, seed, more):
    root = folder(CLASSES)
    before = paths(open_dataset(root, seed=seed))
    folder(dict.fromkeys(CLASSES, more), start=1000)
    after = paths(open_dataset(root, seed=seed))
    assert not before["train"] & (after["val"] | after["test"])
    big = {s: {p for p in before[s] if p.startswith("crow")} for s in SPLITS}
    assert all(big[s] <= after[s] for s in SPLITS), (
        "a picture of a class that needs no mending moved"
    )


def test_a_cut_goes_by_content_not_by_name(folder):
    root = folder(CLASSES)
    where = {
        content_digest(i.path): s for s, items in open_dataset(root).splits.items() for i in items
    }
    for i, path in enumerate(sorted(root.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed{i}.png"))
    assert {
        content_digest(i.path): s for s, items in open_dataset(root).splits.items() for i in items
    } == where


def test_copies_are_never_parted(folder):
    root = folder({"crow": 12, "finch": 12})
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    found = {
        s: {content_digest(i.path) for i in items} for s, items in open_dataset(root).splits.items()
    }
    assert not found["train"] & found["test"]
    assert not found["train"] & found["val"]
    assert not found["val"] & found["test"]


@pytest.mark.parametrize("count", range(1, 40))
def test_a_class_of_three_has_one_in_each_split_and_a_third_is_train(count):
    for first in range(count + 1):
        for second in range(first, count + 1):
            test, val = _part_ends([first, second], count)
            assert 0 <= test <= val < count
            assert count - val >= count / 3 or count < 3
            assert count < 3 or (test >= 1 and val - test >= 1)


def test_shares_are_about_a_fifth_and_a_tenth(folder):
    data = open_dataset(folder({"crow": 300, "finch": 300}))
    assert [round(len(data.split(s)) / 600, 1) for s in SPLITS] == [0.7, 0.1, 0.2]


# --- the store ---


def test_a_split_is_stored_by_content_and_read_back(folder):
    data = open_dataset(folder(CLASSES))
    stored = split_of_dataset(data)
    rows = json.loads(stored.to_text())
    assert rows["cut"] == data.cut
    assert all(
        (data.root / path).is_file() and content_digest(data.root / path) == digest
        for path, _, digest in rows["train"]
    )
    assert read_text(stored.to_text(), source="x") == unpack(stored.packed(), source="x") == stored
    assert stored.packed() == split_of_dataset(data).packed()


def test_a_split_without_digests_is_filled_from_the_files_that_are_there(folder):
    data = open_dataset(folder(CLASSES))
    stored = split_of_dataset(data)
    bare = read_text(
        json.dumps({s: [[e.path, e.label] for e in some] for s, some in stored.splits.items()}),
        source="x",
    )
    assert not bare.has_digests()
    assert with_digests(bare, data.root).splits == stored.splits


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            "{}",
            "nul",
            "[" * 100_000,
            '{"train": 1}',
            '{"train": [1]}',
            '{"train": [["a"]]}',
        ),
        *('{"train": [["a", "0"]]}', '{"train": [["a", -1]]}', '{"train": [["a", true]]}'),
        *(
            '{"train": [["", 0]]}',
            '{"train": [["a\\u0000", 0]]}',
            '{"train": [["a", 0, "zz"]]}',
            '{"train": [], "cut": 1}',
        ),
    ],
)
def test_a_damaged_split_is_a_data_error(text):
    with pytest.raises(DataError, match=r"x is (damaged|nested too deeply)"):
        read_text(text, source="x")


def test_a_damaged_packed_split_is_a_data_error(folder):
    packed = split_of_dataset(open_dataset(folder(CLASSES))).packed()
    for bad in (b"", packed[:-9], b"x" + packed, packed[:20] + b"\0\0\0" + packed[23:]):
        with pytest.raises(DataError):
            unpack(bad, source="x")


# --- the match ---


@pytest.fixture
def cut(folder):
    """A folder that was cut, and what was stored of it."""
    data = open_dataset(folder(CLASSES))
    return data, split_of_dataset(data)


def test_the_same_folder_gives_the_same_splits(cut):
    data, stored = cut
    found = match_split(read_folder(data.root), stored)
    assert {s: set(found.splits[s]) for s in SPLITS} == {s: set(data.splits[s]) for s in SPLITS}
    assert match_split(read_folder(data.root), stored, exact=True).splits == data.splits
    assert (found.match.known, found.match.new, found.match.missing) == (
        53,
        0,
        {"train": (), "val": (), "test": ()},
    )


def test_renamed_and_moved_pictures_are_the_same_pictures(cut):
    data, stored = cut
    where = {content_digest(i.path): s for s, items in data.splits.items() for i in items}
    for i, path in enumerate(sorted(data.root.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"x{i}.png"))
    found = match_split(read_folder(data.root), stored)
    assert {content_digest(i.path): s for s, items in found.splits.items() for i in items} == where


def test_new_pictures_go_nowhere_until_asked_and_are_counted(cut, folder):
    data, stored = cut
    folder(dict.fromkeys(CLASSES, 5), start=1000)
    found = match_split(read_folder(data.root), stored)
    assert paths(found) == paths(data)
    assert (found.match.new, found.match.taken) == (15, 0)
    asked = match_split(read_folder(data.root), stored, new="test")
    assert len(asked.split("test")) == len(data.split("test")) + 15
    assert asked.match.taken == 15
    assert paths(asked)["train"] == paths(data)["train"]


def test_missing_pictures_are_counted_and_named(cut, caplog):
    from finedge.data import log_match

    data, stored = cut
    lost = data.split("test")[:2]
    for item in lost:
        item.path.unlink()
    found = match_split(read_folder(data.root), stored)
    log_match(found)
    assert found.match.to_json()["missing"] == {"test": 2}
    assert all(str(i.path.relative_to(data.root)) in caplog.text for i in lost)
    assert len(found.split("test")) == len(data.split("test")) - 2


def test_a_further_copy_is_left_out_and_counted(cut):
    data, stored = cut
    shutil.copy(data.split("test")[0].path, data.root / "crow" / "copy.png")
    found = match_split(read_folder(data.root), stored)
    assert paths(found) == paths(data)
    assert found.match.copies == 1


def test_a_corrected_label_counts(cut):
    data, stored = cut
    item = next(i for i in data.split("test") if i.label == 0)
    item.path.rename(data.root / "finch" / "was_crow.png")
    found = match_split(read_folder(data.root), stored)
    assert found.match.relabelled == 1
    assert replace(item, path=data.root / "finch" / "was_crow.png", label=1) in found.split("test")


def test_another_data_set_has_its_own_splits(cut, tmp_path):
    _, stored = cut
    for split in ("train", "test"):
        for label in CLASSES:
            for i in range(3):
                draw(tmp_path / "other" / split / label / f"{i}.png")
    found = match_split(read_folder(tmp_path / "other"), stored)
    assert len(found.split("test")) == 9
    assert "another data set" in found.notes[-1]
    assert select_images(found, stored, split="test").record["split_from"] == "folder"


def test_a_split_of_the_folder_is_not_overruled(folder):
    data = open_dataset(folder({"crow": 12, "finch": 12}, "train", "test"))
    stored = split_of_dataset(data)
    assert data.cut == {"seed": 0, "val": 0.1}
    moved = data.split("train")[0].path
    moved.rename(data.root / "test" / "crow" / "moved.png")
    found = match_split(read_folder(data.root), stored)
    assert paths(found)["val"] == paths(data)["val"], "what was cut from train stays cut"
    assert "test/crow/moved.png" in paths(found)["test"]
    with pytest.raises(
        DataError, match=r"1 image\(s\) of split 'test' were trained on: .*moved\.png"
    ):
        select_images(found, stored, split="test")


# --- what a number is measured on ---


def test_a_picture_that_was_trained_on_is_refused_unless_allowed(folder, caplog):
    root = folder({"crow": 12, "finch": 12}, "train", "val", "test")
    stored = split_of_dataset(open_dataset(root))
    shutil.copy(root / "train" / "crow" / "3.png", root / "test" / "crow" / "leak.png")
    data = match_split(read_folder(root), stored)
    with pytest.raises(DataError, match=r"leak\.png") as error:
        select_images(data, stored, split="test")
    assert error.value.exit_code == 4
    allowed = select_images(data, stored, split="test", allow_overlap=True)
    assert (len(allowed.items), allowed.record["overlap"]) == (25, 1)
    assert "measured anyway" in caplog.text
    assert select_images(data, stored, split="train").record["overlap"] == 0


def test_without_a_stored_split_the_folders_own_train_is_looked_at(folder):
    root = folder({"crow": 12, "finch": 12}, "train", "val", "test")
    shutil.copy(root / "train" / "crow" / "3.png", root / "test" / "crow" / "leak.png")
    with pytest.raises(DataError, match=r"leak\.png"):
        select_images(open_dataset(root), None, split="test")


def test_a_split_cut_anew_for_a_model_of_unknown_training_is_refused(cut):
    data, _ = cut
    with pytest.raises(DataError, match="would be cut again"):
        select_images(data, None, split="test")
    assert (
        select_images(data, None, split="test", allow_overlap=True).record["split_from"]
        == "cut anew"
    )
    assert select_images(data, None, split="train").items


def test_a_split_of_new_pictures_only_says_so(folder):
    root = folder({"crow": 12, "finch": 12}, "train", "val", "test")
    stored = split_of_dataset(open_dataset(root))
    shutil.rmtree(root / "test")
    folder({"crow": 3, "finch": 3}, "test", start=500)
    with pytest.raises(DataError, match=r"6 image\(s\) are new to the stored split") as error:
        select_images(match_split(read_folder(root), stored), stored, split="test")
    assert "--new-images test" in error.value.fix
    assert (
        len(
            select_images(
                match_split(read_folder(root), stored, new="test"), stored, split="test"
            ).items
        )
        == 6
    )


def test_labels_are_matched_by_name_and_some_may_lack(cut):
    data, _ = cut
    labels = ("wren", "tit", "finch", "crow")  # another order, and one more
    found = with_labels(data, labels, owner="b")
    assert found.labels == labels
    assert "1 of 4 classes have no image in it: tit" in found.notes[-1]
    for split, items in found.splits.items():
        assert [i.path for i in items] == [i.path for i in data.splits[split]]
        assert all(labels[item.label] == item.path.parent.name for item in items)


def test_images_of_a_class_that_the_model_lacks_are_refused(cut):
    data, _ = cut
    assert with_labels(data, ("crow", "finch", "wren"), owner="b") == data
    with pytest.raises(DataError, match=r"images of 1 class\(es\) that b does not know: wren"):
        with_labels(data, ("crow", "finch", "tit"), owner="b")


def test_a_class_folder_without_images_is_no_other_class(cut):
    data, _ = cut
    (data.root / "New folder").mkdir()
    found = with_labels(read_folder(data.root), ("crow", "finch", "wren"), owner="b")
    assert found.labels == ("crow", "finch", "wren")


def photos(root, *labels):
    """Return a folder of 5 new pictures a class, without splits."""
    for label in labels:
        for i in range(5):
            draw(root / label / f"new-{i}.png", seed=f"field {label} {i}")
    return root


def test_all_of_another_folder_without_splits_is_measured(cut, tmp_path):
    data, stored = cut
    field = with_labels(read_folder(photos(tmp_path / "f", "crow")), data.labels, owner="b")
    found = match_split(field, stored, whole=True)
    assert (len(found.split("test")), found.cut) == (5, None)
    assert "all of it is taken as split 'test'" in found.notes[-1]
    record = select_images(found, stored, split="test").record
    assert (record["split_from"], record["overlap"], record["new"]) == ("folder", 0, 5)
    assert len(match_split(field, stored, whole=True, new="val").split("val")) == 5


def test_another_folder_without_splits_is_cut_for_a_calibration(cut, tmp_path):
    _, stored = cut
    found = match_split(read_folder(photos(tmp_path / "f", *CLASSES)), stored)
    assert found.cut
    assert all(found.split(split) for split in ("train", "val", "test"))


def test_images_that_may_have_been_saved_anew_are_pointed_out(cut, caplog):
    data, stored = cut
    for items in data.splits.values():
        for item in items:
            draw(item.path, seed=f"anew {item.path.name}")
    assert match_split(read_folder(data.root), stored, whole=True).match.known == 0
    assert "53 image(s)" in caplog.text
    assert "saved again" in caplog.text


def test_a_digest_is_read_anew_when_the_file_changes(tmp_path):
    path = draw(tmp_path / "a.png")
    first = content_digest(path)
    draw(path, seed="another")
    assert len(first) == 64
    assert content_digest(path) != first


def test_an_empty_stored_split_matches_nothing(cut):
    data, _ = cut
    assert (
        "another data set"
        in match_split(read_folder(data.root), StoredSplit({"train": ()})).notes[-1]
    )
