from __future__ import annotations

import logging
import zlib

import pytest

from finedge.data import LAYOUTS, content_digest, drop_unreadable, open_dataset
from finedge.errors import DataError


def folders(root, make_image, splits, counts):
    for split in splits:
        for label, n in counts.items():
            for i in range(n):
                make_image(
                    root / split / label / f"{i}.jpg",
                    seed=zlib.crc32(f"{split}/{label}/{i}".encode()),
                )
    return root


def test_split_folders(tmp_path, make_image):
    data = open_dataset(
        folders(tmp_path, make_image, ("train", "val", "test"), {"crow": 3, "finch": 3})
    )
    assert (data.layout, data.labels, data.cut) == ("split-folders", ("crow", "finch"), None)
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [6, 6, 6]


def test_one_folder_is_cut_into_three_the_same_way_every_time(tmp_path, make_image):
    folders(tmp_path, make_image, (".",), {"crow": 20, "finch": 10})
    first, again, other = (
        open_dataset(tmp_path),
        open_dataset(tmp_path),
        open_dataset(tmp_path, seed=1),
    )
    assert first.layout == "folder"
    assert all(not first.absent(s) for s in ("train", "val", "test")), (
        "a class lacks an image in a split"
    )
    assert first == again
    assert first.split("test") != other.split("test")
    assert len({i.path for s in first.splits.values() for i in s}) == 30, (
        "an image is in two splits or in none"
    )


def test_a_missing_val_is_cut_from_train(tmp_path, make_image):
    data = open_dataset(folders(tmp_path, make_image, ("train", "test"), {"crow": 10, "finch": 10}))
    assert data.cut == {"seed": 0, "val": 0.1}
    assert len(data.split("train")) + len(data.split("val")) == len(data.split("test")) == 20
    assert not data.absent("val")


def test_without_a_val_share_all_of_train_is_trained_on(tmp_path, make_image, caplog):
    root = folders(tmp_path, make_image, ("train", "test"), {"crow": 10, "finch": 10})
    data = open_dataset(root, val=0.0)
    assert data.cut == {"seed": 0, "val": 0.0}
    assert (len(data.split("train")), data.splits.get("val", ())) == (20, ())
    assert "val = 0: there is no val split" in caplog.text


def test_a_folder_without_splits_gives_test_and_no_val_at_val_zero(tmp_path, make_image):
    root = folders(tmp_path, make_image, ("",), {"crow": 10, "finch": 10})
    data = open_dataset(root, val=0.0)
    assert data.cut == {"seed": 0, "test": 0.2, "val": 0.0}
    assert data.split("test")
    assert not data.splits.get("val")


def test_a_thin_val_of_the_user_is_kept_and_said(tmp_path, make_image, caplog):
    folders(tmp_path, make_image, ("train",), {"crow": 10, "finch": 10})
    folders(tmp_path, make_image, ("val",), {"crow": 1})
    data = open_dataset(tmp_path)
    assert ([i.path.name for i in data.split("val")], data.cut) == (["0.jpg"], None)
    assert "1 image(s) for 2 classes: it is used as it is" in caplog.text


def test_lists_with_names(tmp_path, make_image):
    lines = {"train": [], "val": [], "test": []}
    for split, split_lines in lines.items():
        for label in ("crow", "finch"):
            for i in range(3):
                make_image(tmp_path / "pictures" / split / f"{label}{i}.jpg")
                split_lines.append(f"pictures/{split}/{label}{i}.jpg,{label}")
        (tmp_path / f"{split}.csv").write_text("\n".join(split_lines))
    data = open_dataset(tmp_path)
    assert (data.layout, data.labels) == ("lists", ("crow", "finch"))
    assert all(len(data.split(s)) == 6 for s in lines)


def test_grocery_store_as_published(tmp_path, make_image):
    (tmp_path / "classes.csv").write_text(
        "Class Name (str),Class ID (int),Coarse\nGala,0,Apple\nKiwi,1,Kiwi\n"
    )
    for split in ("train", "val", "test"):
        for i in range(4):
            make_image(tmp_path / split / "Fruit" / "Apple" / f"{i}.jpg")
        (tmp_path / f"{split}.txt").write_text(
            "".join(f"{split}/Fruit/Apple/{i}.jpg, {i % 2}, 0\n" for i in range(4))
        )
    data = open_dataset(tmp_path)
    assert data.labels == ("Gala", "Kiwi")
    assert all(i.path.is_file() for i in data.split("test"))


def test_official_cub_numbers_from_one_and_one_is_train(tmp_path, make_image):
    for i in (1, 2, 3, 4):
        make_image(tmp_path / "images" / f"c/{i}.jpg")
    (tmp_path / "images.txt").write_text("".join(f"{i} c/{i}.jpg\n" for i in (1, 2, 3, 4)))
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 2\n3 1\n4 2\n")
    (tmp_path / "train_test_split.txt").write_text("1 1\n2 1\n3 0\n4 0\n")
    (tmp_path / "classes.txt").write_text("1 001.Crow\n2 002.Finch\n")
    data = open_dataset(tmp_path)
    assert (data.layout, data.labels) == ("cub", ("001.Crow", "002.Finch"))
    assert {i.path.name for i in data.split("test")} == {"3.jpg", "4.jpg"}


def test_cub100_has_its_published_counts(shared_data):
    data = open_dataset(shared_data / "cub100")
    assert len(data.split("train")) + len(data.split("val")) == 2999
    assert len(data.split("test")) == 2903
    assert len(data.labels) == 100


def test_grocery_has_its_published_counts(shared_data):
    data = open_dataset(shared_data / "grocery240")
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [2640, 296, 2485]
    assert len(data.labels) == 81


def test_the_layout_is_named(tmp_path, make_image, caplog):
    with caplog.at_level(logging.INFO, "finedge"):
        open_dataset(folders(tmp_path, make_image, ("train",), {"crow": 10, "finch": 10}))
    assert "layout 'split-folders', 2 classes, " in caplog.text
    assert "the folder has no val split: it is cut from train" in caplog.text


def test_one_class_is_refused(tmp_path, make_image):
    with pytest.raises(DataError, match=r"1 class\(es\)"):
        open_dataset(folders(tmp_path, make_image, ("train",), {"crow": 10}))


def test_a_class_without_a_training_image_is_refused(tmp_path, make_image):
    folders(tmp_path, make_image, ("train",), {"crow": 3, "finch": 3})
    (tmp_path / "train" / "wren").mkdir()
    with pytest.raises(DataError, match="wren"):
        open_dataset(tmp_path)


def test_a_class_absent_from_test_only_warns(tmp_path, make_image, caplog):
    folders(tmp_path, make_image, ("train",), {"crow": 20, "finch": 20})
    folders(tmp_path, make_image, ("test",), {"crow": 3})
    data = open_dataset(tmp_path)
    assert data.absent("test") == ("finch",)
    assert "finch" in caplog.text


def test_no_images_lists_the_layouts(tmp_path):
    with pytest.raises(DataError) as raised:
        open_dataset(tmp_path)
    assert all(name in str(raised.value) for name in LAYOUTS)


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        open_dataset(tmp_path / "none")


def test_an_unknown_split_lists_the_others(tmp_path, make_image):
    data = open_dataset(folders(tmp_path, make_image, ("train",), {"crow": 10, "finch": 10}))
    with pytest.raises(DataError, match="train, val"):
        data.split("test")


def test_unreadable_images_are_left_out_and_listed(tmp_path, make_image, caplog):
    data = open_dataset(folders(tmp_path, make_image, ("train",), {"crow": 40, "finch": 40}))
    broken = data.split("train")[3].path
    broken.write_bytes(b"")
    rest = drop_unreadable(data)
    assert len(rest.split("train")) == len(data.split("train")) - 1
    assert str(broken) in caplog.text


def test_too_many_unreadable_images_are_refused(tmp_path, make_image):
    data = open_dataset(folders(tmp_path, make_image, ("train",), {"crow": 10, "finch": 10}))
    for item in data.split("train")[:3]:
        item.path.write_bytes(b"not an image")
    with pytest.raises(DataError, match="3 of 20"):
        drop_unreadable(data)


def test_a_list_that_names_missing_files_is_refused(tmp_path, make_image):
    make_image(tmp_path / "a.jpg")
    (tmp_path / "train.txt").write_text("a.jpg, 0\nmissing.jpg, 1\n")
    with pytest.raises(DataError, match=r"missing\.jpg"):
        drop_unreadable(open_dataset(tmp_path))


def test_overlap_is_judged_by_content(tmp_path, make_image):
    one, two = make_image(tmp_path / "a.jpg"), make_image(tmp_path / "b.jpg")
    assert (
        content_digest(one)
        == content_digest(two)
        != content_digest(make_image(tmp_path / "c.jpg", seed=1))
    )
