import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from finedge.errors import FinedgeError, UsageError
from finedge.image import read_image
from finedge.train.data.check import _close, dhash
from finedge.train.data.command import check


def photo(seed, size=(60, 80)):
    return cv2.resize(
        np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8),
        size[::-1],
        interpolation=cv2.INTER_CUBIC,
    )


@pytest.fixture
def folder(tmp_path):
    """Two classes with 10 train, 4 val and 3 test images each, all different."""
    for s, (split, count) in enumerate({"train": 10, "val": 4, "test": 3}.items()):
        for c, label in enumerate(("crow", "finch")):
            (tmp_path / split / label).mkdir(parents=True)
            for n in range(count):
                cv2.imwrite(str(tmp_path / split / label / f"{n}.jpg"), photo(100 * s + 10 * c + n))
    return tmp_path


def test_a_clean_folder_passes_and_is_counted(folder):
    found = check(folder)
    assert json.loads(json.dumps(found)) == found
    assert (found["pass"], found["images"], found["classes"], found["layout"]) == (
        True,
        34,
        2,
        "split-folders",
    )
    assert found["balance"]["train"] == {
        "images": 20,
        "min": 10,
        "median": 10.0,
        "max": 10,
        "empty": [],
    }
    assert found["sizes"]["short"] == {"min": 60, "median": 60.0, "max": 60}
    assert found["sizes"]["long"] == {"min": 80, "median": 80.0, "max": 80}
    assert found["exact"]["groups"] == 0
    assert found["near"]["list"] == []


def test_the_same_bytes_in_two_splits_fail_and_are_named(folder):
    (folder / "test" / "crow" / "copy.jpg").write_bytes(
        (folder / "train" / "crow" / "0.jpg").read_bytes()
    )
    with pytest.raises(
        FinedgeError, match="1 exact duplicates across splits, 0 under two labels"
    ) as failed:
        check(folder)
    assert failed.value.exit_code == 1
    exact = failed.value.result["exact"]
    assert (exact["groups"], exact["across_splits"], exact["different_label"]) == (1, 1, 0)
    assert [e["path"] for e in exact["list"][0]] == ["train/crow/0.jpg", "test/crow/copy.jpg"]
    assert failed.value.result["near"]["list"] == [], "an exact duplicate is listed once"


def test_the_same_bytes_under_two_labels_fail(folder):
    (folder / "train" / "finch" / "copy.jpg").write_bytes(
        (folder / "train" / "crow" / "0.jpg").read_bytes()
    )
    with pytest.raises(FinedgeError, match="0 exact duplicates across splits, 1 under two labels"):
        check(folder)


def test_the_same_bytes_twice_within_a_class_are_listed_but_pass(folder):
    (folder / "train" / "crow" / "copy.jpg").write_bytes(
        (folder / "train" / "crow" / "0.jpg").read_bytes()
    )
    assert check(folder)["exact"]["groups"] == 1


def near_copy(source, target):
    """Another size, quality and brightness."""
    image = cv2.imread(str(source))
    cv2.imwrite(
        str(target),
        cv2.resize(np.clip(image * 0.9 + 8, 0, 255).astype(np.uint8), (120, 90)),
        [cv2.IMWRITE_JPEG_QUALITY, 70],
    )


def test_near_duplicates_pass_and_are_listed_riskiest_first(folder):
    near_copy(folder / "train" / "crow" / "0.jpg", folder / "train" / "crow" / "within.jpg")
    near_copy(folder / "train" / "crow" / "1.jpg", folder / "test" / "finch" / "other_label.jpg")
    near_copy(folder / "train" / "crow" / "2.jpg", folder / "test" / "crow" / "leak.jpg")
    near = check(folder)["near"]
    assert near["across_splits"] == {"same_label": 1, "different_label": 1}
    assert near["within_split"] == {"same_label": 1, "different_label": 0}
    assert [p["b"]["path"] for p in near["list"]] == [
        "test/crow/leak.jpg",
        "test/finch/other_label.jpg",
        "train/crow/within.jpg",
    ]


def test_what_cannot_be_read_fails_and_says_why(folder):
    (folder / "val" / "crow" / "empty.jpg").write_bytes(b"")
    (folder / "val" / "crow" / "cut.jpg").write_bytes(
        (folder / "train" / "crow" / "0.jpg").read_bytes()[:-200]
    )
    with pytest.raises(FinedgeError, match="2 unreadable files") as failed:
        check(folder)
    listed = failed.value.result["unreadable"]["list"]
    assert {e["path"] for e in listed} == {"val/crow/empty.jpg", "val/crow/cut.jpg"}
    assert {e["path"]: e["why"].partition(".jpg ")[2].partition(":")[0] for e in listed} == {
        "val/crow/empty.jpg": "is empty",
        "val/crow/cut.jpg": "is cut short",
    }


def test_a_listed_file_that_is_missing_is_unreadable(folder, tmp_path):
    for split in ("train", "test"):
        rows = [
            f"{p.relative_to(folder)},{p.parent.name}"
            for p in sorted((folder / split).rglob("*.jpg"))
        ]
        (folder / f"{split}.csv").write_text("\n".join(rows))
    (folder / "test" / "crow" / "0.jpg").unlink()
    with pytest.raises(FinedgeError, match="1 unreadable files"):
        check(folder)


def test_an_uneven_folder_is_described(folder):
    for path in (folder / "test" / "finch").iterdir():
        path.unlink()
    cv2.imwrite(str(folder / "train" / "finch" / "tiny.png"), photo(999, size=(12, 40)))
    found = check(folder)
    assert found["balance"]["test"] == {
        "images": 3,
        "min": 3,
        "median": 3.0,
        "max": 3,
        "empty": ["finch"],
    }
    assert (found["balance"]["train"]["min"], found["balance"]["train"]["max"]) == (10, 11)
    assert found["sizes"]["tiny"] == {
        "under": 32,
        "n": 1,
        "list": [{"path": "train/finch/tiny.png", "split": "train", "label": "finch"}],
    }


def test_lists_are_short_and_counts_complete(folder):
    for n in range(5):
        (folder / "train" / "crow" / f"copy{n}.jpg").write_bytes(
            (folder / "train" / "crow" / f"{n}.jpg").read_bytes()
        )
    found = check(folder, show=2)
    assert (found["exact"]["groups"], len(found["exact"]["list"])) == (5, 2)


def test_a_difference_hash_ignores_size_and_brightness_but_not_content(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), photo(1))
    near_copy(tmp_path / "a.png", tmp_path / "b.jpg")
    a, b = dhash(read_image(tmp_path / "a.png")), dhash(read_image(tmp_path / "b.jpg"))
    assert 0 <= a < 2**64
    assert (a ^ b).bit_count() <= 3
    assert (a ^ dhash(photo(2))).bit_count() > 16


@pytest.mark.parametrize("threshold", [0, 3, 16])
def test_pairs_are_those_of_a_plain_double_loop(threshold):
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 700, np.uint64)  # more than one block
    for i, bits in zip(range(0, 600, 20), range(30), strict=True):
        hashes[i + 97] = hashes[i] ^ np.uint64((1 << bits) - 1)
    slow = {
        ((int(a) ^ int(b)).bit_count(), i, j)
        for i, a in enumerate(hashes)
        for j, b in enumerate(hashes)
        if i < j and (int(a) ^ int(b)).bit_count() <= threshold
    }
    assert set(_close(hashes, threshold)) == slow
    assert slow


@pytest.mark.parametrize("bad", [{"near": -1}, {"near": 17}, {"show": -1}])
def test_an_argument_out_of_range_is_refused(folder, bad):
    with pytest.raises(UsageError, match=r"--(near|show) is"):
        check(folder, **bad)


def test_a_failed_check_prints_its_result_and_imports_no_torch(folder):
    (folder / "test" / "crow" / "copy.jpg").write_bytes(
        (folder / "train" / "crow" / "0.jpg").read_bytes()
    )
    code = (
        "import sys, finedge.cli as c; code = c.main(['data', 'check', sys.argv[1]]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["exact"]["across_splits"] == 1


def test_the_real_data_sets_hold_no_exact_leak(shared_data):
    found = check(shared_data / "cub100")
    assert found["images"] == 5902
    assert found["near"]["across_splits"]["same_label"] >= 3, (
        "train and test of CUB share photos (Bobolink 26 and 45, for one)"
    )
