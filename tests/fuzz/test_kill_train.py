"""kill -9 at random moments of train, export and calibrate.

The result is the undisturbed one or the old one, and no file is left over.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.train.folder import FILES
from finedge.train.page import PAGE

pytestmark = pytest.mark.slow

SMALL = (
    "--model plain --backbone mobilenetv2_035 --weights none --size 32 --epochs 4 --batch-size 4 "
    "--lr 0.02 --workers 1 --device cpu"
)
LONGEST_S = 300  # of one command, on a machine that is busy: only a hang takes longer


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of small pictures, cut into the splits by training."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for label in ("bird", "fish"):
        (root / label).mkdir()
        for number in range(16):
            small = generator.integers(0, 255, (6, 8, 3), np.uint8)
            cv2.imwrite(
                str(root / label / f"{number:02}.png"),
                cv2.resize(small, (48, 36), interpolation=cv2.INTER_CUBIC),
            )
    return root


# Processes that have read Python and torch already: a kill then meets the work, not the imports.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["finedge.train.seeds", "finedge.export.command", "finedge.calib.command", "onnxruntime"]
)


def finished(*words: object) -> float:
    """Run a command to its end and return its seconds; what it made is looked at by the test."""
    began = time.monotonic()
    process = PROCESSES.Process(target=main, args=([str(word) for word in words],))
    process.start()
    process.join(LONGEST_S)
    assert process.exitcode == 0, "it hangs, or died"
    return time.monotonic() - began


def killed(seconds: float, *words: object) -> bool:
    """Kill a command after so many seconds; return whether it was still running."""
    process = PROCESSES.Process(target=main, args=([str(word) for word in words],))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def learned(run: Path) -> tuple[dict[str, bytes], list[dict[str, object]]]:
    """Return the weights, bit by bit, and the metrics without times."""
    weights = {
        name: tensor.numpy().tobytes()
        for name, tensor in load_file(run / "checkpoint.safetensors").items()
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return weights, [{key: row[key] for key in ("epoch", "loss", "lr", "val")} for row in rows]


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The undisturbed run and the seconds it took."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    finished("--version")  # the server of processes reads Python now, and in nobody's time
    return run, finished("train", "--data", pictures, "--out", run, *SMALL.split())


def test_a_training_killed_several_times_ends_as_the_undisturbed_one(
    whole: tuple[Path, float], pictures: Path, tmp_path: Path
) -> None:
    undisturbed, seconds = whole
    kills, runs, chance = 0, 0, random.Random(10)
    while kills < 20:
        assert runs < 40, "the kills come too late"
        runs += 1
        out = tmp_path / f"run{runs}"
        fresh = ["train", "--data", pictures, "--out", out, *SMALL.split()]
        for _ in range(4):  # as often in one training: of resumed ones too
            again = ["train", "--out", out, "--resume", "--device", "cpu", "--workers", "1"]
            kills += killed(
                chance.uniform(0.05, 1.0) * seconds,
                *(again if (out / "run.json").exists() else fresh),
            )
        finished(*(again if (out / "run.json").exists() else fresh))
        assert learned(out) == learned(undisturbed), f"run {runs}"
        # A kill between the last epoch and the page leaves none; `evaluate --page` writes it.
        assert {path.name for path in out.iterdir()} - {PAGE} == set(FILES), f"run {runs}"
    assert {path.name for path in tmp_path.iterdir()} == {f"run{n}" for n in range(1, runs + 1)}


def test_an_export_that_is_killed_leaves_the_old_bundle_or_the_new_one(
    whole: tuple[Path, float], tmp_path: Path
) -> None:
    run, _ = whole
    out, new, chance = tmp_path / "birds.finedge", tmp_path / "new.finedge", random.Random(11)
    seconds = finished("export", run, "--out", out)
    digest = Bundle.load(out).digest()
    kills, tries = 0, 0
    while kills < 10:
        assert tries < 30, "the kills come too late"
        tries += 1
        place = new if tries % 2 else out  # nothing is there yet, or an old bundle
        kills += killed(chance.uniform(0.1, 1.0) * seconds, "export", run, "--out", place)
        assert out.exists()
        assert all(Bundle.load(path).digest() == digest for path in (out, new) if path.exists())
        if new.exists():
            shutil.rmtree(new)
    finished("export", run, "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_killed_calibration_leaves_the_old_bundle_or_the_new_one(
    whole: tuple[Path, float], pictures: Path, tmp_path: Path
) -> None:
    run, _ = whole
    bundle, kept, chance = tmp_path / "birds.finedge", tmp_path / "kept", random.Random(12)
    finished("export", run, "--out", bundle)
    old = Bundle.load(bundle).digest()
    shutil.copytree(bundle, kept)
    words = ["calibrate", bundle, "--data", pictures, "--images", "8"]
    seconds = finished(*words)
    new = Bundle.load(bundle).digest()
    kills, tries = 0, 0
    while kills < 10:
        assert tries < 30, "the kills come too late"
        tries += 1
        shutil.rmtree(bundle)
        shutil.copytree(kept, bundle)
        kills += killed(chance.uniform(0.1, 1.0) * seconds, *words)
        assert Bundle.load(bundle).digest() in (old, new)
    finished(*words)
    assert Bundle.load(bundle).digest() == new
    assert {path.name for path in tmp_path.iterdir()} == {bundle.name, kept.name}
