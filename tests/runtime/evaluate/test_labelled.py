"""A bundle is measured on the split that its training stored; what it was trained on is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.data import content_digest, open_dataset, split_of_dataset
from finedge.data.stored_split import FILE
from finedge.errors import DataError
from finedge.runtime.evaluate.command import evaluate
from finedge.runtime.evaluate.labelled import SplitOptions, bundle_dataset
from tests.runtime.benchmark.conftest import run_benchmark
from tests.runtime.conftest import COLOURS, BundleMaker, colour_frame


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder without splits: 12 pictures a colour."""
    root = tmp_path / "flat"
    add(root, range(1000, 1012))
    return root


def add(root: Path, seeds: range) -> None:
    for colour in COLOURS:
        (root / colour).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            Image.fromarray(colour_frame(colour, seed=seed)).save(root / colour / f"{seed}.png")


@pytest.fixture
def stored(make_bundle: BundleMaker, flat: Path) -> Bundle:
    """A bundle that stores the cut of `flat`."""
    return make_bundle("stored").extend(
        "export", {FILE: split_of_dataset(open_dataset(flat)).packed()}, {}
    )


def names(bundle: Bundle, root: Path) -> dict[str, set[str]]:
    data = bundle_dataset(bundle, root)
    return {
        split: {str(i.path.relative_to(data.root)) for i in items}
        for split, items in data.splits.items()
    }


def test_new_pictures_change_no_number_until_asked(
    stored: Bundle, flat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = evaluate(stored.path, dataset=SplitOptions(data=flat), variant="fp32")
    splits = names(stored, flat)
    add(flat, range(100, 105))
    after = evaluate(stored.path, dataset=SplitOptions(data=flat), variant="fp32")
    assert names(stored, flat) == splits
    assert all(after[key] == before[key] for key in ("n", "top1", "top5"))
    assert (before["data"]["split_from"], before["data"]["new"]) == ("stored", 0)
    assert after["data"]["new"] == 30
    assert "30 image(s)" in caplog.text
    asked = evaluate(
        stored.path, dataset=SplitOptions(data=flat, new_images="test"), variant="fp32"
    )
    assert (asked["n"], asked["data"]["taken"]) == (before["n"] + 30, 30)


def test_renamed_pictures_keep_their_split(stored: Bundle, flat: Path) -> None:
    sizes = {split: len(images) for split, images in names(stored, flat).items()}
    for i, path in enumerate(sorted(flat.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"n{i}.png"))
    assert {split: len(images) for split, images in names(stored, flat).items()} == sizes


@pytest.fixture
def leaky(make_bundle: BundleMaker, tiny_data: Path) -> Bundle:
    """A bundle whose data set has got a training picture in test since."""
    bundle = make_bundle("leaky").extend(
        "export", {FILE: split_of_dataset(open_dataset(tiny_data)).packed()}, {}
    )
    shutil.copy(tiny_data / "train" / "red" / "0.png", tiny_data / "test" / "red" / "leak.png")
    return bundle


def test_evaluating_what_was_trained_on_ends_with_exit_4(
    leaky: Bundle, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(leaky.path), "--data", str(tiny_data)]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "leak.png" in captured.err
    assert "--allow-overlap" in captured.err
    assert main(["evaluate", str(leaky.path), "--data", str(tiny_data), "--allow-overlap"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["n"], result["data"]["overlap"]) == (19, 1)


def test_a_benchmark_counts_what_was_trained_on(leaky: Bundle, tiny_data: Path) -> None:
    quick = {"data": tiny_data, "duration": "100ms", "variants": "fp32", "images": 4}
    with pytest.raises(DataError, match=r"leak\.png"):
        run_benchmark((leaky.path,), **quick)
    run_benchmark((leaky.path,), **quick, allow_overlap=True)
    report = json.loads((leaky.path / "report.json").read_text())
    assert report["method"]["data"]["leaky"]["overlap"] == 1
    assert report["rows"][0]["accuracy_n"] == 19


def test_a_bundle_without_a_stored_split_says_so_and_takes_no_cut(
    tiny_bundle: Bundle, flat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = names(tiny_bundle, flat)
    assert "stores no split of its training: that of" in caplog.text
    add(flat, range(100, 101))
    again = names(tiny_bundle, flat)
    assert not splits["train"] & (again["val"] | again["test"])
    with pytest.raises(DataError, match="would be cut again"):
        evaluate(tiny_bundle.path, dataset=SplitOptions(data=flat))
    result = evaluate(tiny_bundle.path, dataset=SplitOptions(data=flat, allow_overlap=True))
    assert result["data"]["split_from"] == "cut anew"


def test_another_data_set_is_evaluated_by_its_own_splits(stored: Bundle, tiny_data: Path) -> None:
    result = evaluate(stored.path, dataset=SplitOptions(data=tiny_data), variant="fp32")
    assert (result["n"], result["data"]["split_from"], result["data"]["known"]) == (18, "folder", 0)


def test_a_damaged_stored_split_is_a_data_error(tiny_bundle: Bundle, tiny_data: Path) -> None:
    bundle = tiny_bundle.extend("export", {FILE: b"no gzip"}, {})
    with pytest.raises(DataError, match=r"split\.json\.gz is damaged"):
        bundle_dataset(bundle, tiny_data)


def test_field_photos_in_class_folders_are_all_measured(stored: Bundle, tmp_path: Path) -> None:
    field = tmp_path / "field"
    add(field, range(200, 204))
    shutil.rmtree(field / "green")
    result = evaluate(stored.path, dataset=SplitOptions(data=field), variant="fp32")
    origin = result["data"]
    assert (result["n"], origin["split_from"], origin["overlap"]) == (20, "folder", 0)
    assert result["top1"] == 1


def test_images_that_calibrated_are_counted_where_they_are_measured(
    stored: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    field = tmp_path / "field"
    add(field, range(200, 204))
    used = [content_digest(field / "red" / f"{seed}.png") for seed in (200, 201)]
    stored.extend("calibrate", {}, {"images_sha256": used})
    assert (
        evaluate(stored.path, dataset=SplitOptions(data=field), variant="fp32")["data"][
            "calibrated"
        ]
        == 2
    )
    assert "2 image(s) of split 'test' calibrated the INT8 variants" in caplog.text
