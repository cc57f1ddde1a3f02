"""The split that training cut goes with the run and its bundle, whatever happens to the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from finedge.bundle import Bundle
from finedge.calib.ranges.calibration_set import draw_sample
from finedge.cli import main
from finedge.data import SPLITS, content_digest, open_dataset
from finedge.runtime.evaluate.labelled import bundle_dataset, stored_split
from finedge.train.run import recorded_data, recorded_split
from tests.finedge.data.conftest import draw

SMALL = (
    "--model",
    "plain",
    "--backbone",
    "wrn_16_1",
    "--weights",
    "none",
    "--size",
    "32",
    "--batch-size",
    "8",
    "--device",
    "cpu",
)
LABELS = ("crow", "finch", "wren")


def ok(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without splits, a run of one epoch on it, and its bundle."""
    work = tmp_path_factory.mktemp("split")
    for label in LABELS:
        for i in range(16):
            draw(work / "d" / label / f"{i}.png", seed=f"{label}{i}")
    ok("train", "--data", work / "d", "--out", work / "run", "--epochs", 1, *SMALL)
    ok("export", work / "run", "--out", work / "b.finedge")
    return work


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    """A copy with five more pictures in each class, in which every file has another name."""
    copy = Path(shutil.copytree(trained, tmp_path / "w"))
    for i, path in enumerate(sorted((copy / "d").rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"n{i}.png"))
    for label in LABELS:
        for i in range(100, 105):
            draw(copy / "d" / label / f"{i}.png", seed=f"{label}{i}")
    return copy


def contents(data) -> dict[str, set[str]]:
    return {split: {content_digest(i.path) for i in data.splits.get(split, ())} for split in SPLITS}


def test_run_and_bundle_store_one_split_by_content(trained: Path) -> None:
    stored = recorded_split(trained / "run")
    assert stored == stored_split(Bundle.load(trained / "b.finedge"))
    assert {s: set(stored.contents(s)) for s in SPLITS} == contents(open_dataset(trained / "d"))
    assert stored.cut == {"seed": 0, "test": 0.2, "val": 0.1}
    assert {"layout", "cut", "left_out", "notes"} <= set(
        json.loads((trained / "run" / "run.json").read_text())["data"]
    )


def test_every_later_command_uses_it(
    trained: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    was = contents(recorded_data(trained / "run"))
    bundle = Bundle.load(work / "b.finedge")
    assert contents(bundle_dataset(bundle, work / "d")) == was
    assert contents(recorded_data(work / "run", root=work / "d")) == was
    assert set(draw_sample(bundle_dataset(bundle, work / "d"), images=1000).digests) == was["train"]
    capsys.readouterr()
    for model in ("run", "b.finedge"):
        ok("evaluate", work / model, "--data", work / "d")
        found = json.loads(capsys.readouterr().out)
        assert (found["n"], found["data"]["new"], found["data"]["split_from"]) == (
            len(was["test"]),
            15,
            "stored",
        )


def test_a_training_goes_on_with_its_own_pictures(trained: Path, work: Path) -> None:
    ok("train", "--out", work / "run", "--data", work / "d", "--resume", "--epochs", 2)
    ok(
        "train",
        "--out",
        shutil.copytree(trained / "run", work / "straight"),
        "--resume",
        "--epochs",
        2,
    )
    renamed, straight = (
        load_file(work / name / "checkpoint.safetensors") for name in ("run", "straight")
    )
    assert renamed.keys() == straight.keys()
    assert all(np.array_equal(renamed[key], straight[key]) for key in renamed), (
        "other names of the same pictures changed the training"
    )


def test_a_training_whose_pictures_are_gone_does_not_go_on(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(work / "d" / "crow")
    draw(work / "d" / "crow" / "0.png", seed="crow0")
    assert main(["train", "--out", str(work / "run"), "--data", str(work / "d"), "--resume"]) == 4
    assert "that" in capsys.readouterr().err


def test_a_run_of_version_0_1_keeps_its_split(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    stored, record = (
        json.loads((run / "split.json").read_text()),
        json.loads((run / "run.json").read_text()),
    )
    (run / "split.json").write_text(json.dumps({s: [row[:2] for row in stored[s]] for s in SPLITS}))
    assert record["data"]["cut"] == stored["cut"]
    assert contents(recorded_data(run)) == contents(recorded_data(trained / "run"))
    ok("export", run, "--out", tmp_path / "b.finedge")
    assert stored_split(Bundle.load(tmp_path / "b.finedge")) == recorded_split(trained / "run")
