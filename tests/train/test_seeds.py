import json
import shutil

import cv2
import pytest
import torch
from safetensors.torch import load_file

from finedge.cli import main
from finedge.errors import DataError, UsageError
from finedge.train.run import read_record
from finedge.train.step import TrainingStep


@pytest.fixture
def settings(settings):
    """A rate at which no seed diverges."""
    return {**settings, "lr": 0.002}


def equal(one, two):
    first, second = (load_file(run / "checkpoint.safetensors") for run in (one, two))
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_each_seed_is_a_run_and_the_result_is_their_mean_and_range(train, tmp_path, settings):
    result = train(out=tmp_path / "runs", **settings, seed=3, seeds=2)
    assert [run["run"] for run in result["runs"]] == [
        str(tmp_path / "runs" / name) for name in ("seed3", "seed4")
    ]
    assert [
        read_record(tmp_path / "runs" / f"seed{seed}")["recipe"]["seed"] for seed in (3, 4)
    ] == [3, 4]
    top1 = [run["top1"] for run in result["runs"]]
    assert result["top1"] == {
        "mean": pytest.approx(sum(top1) / 2, abs=1e-6),
        "min": min(top1),
        "max": max(top1),
        "n": 2,
    }
    alone = train(out=tmp_path / "alone", **settings, seed=3)
    assert equal(tmp_path / "alone", tmp_path / "runs" / "seed3")
    assert not equal(tmp_path / "alone", tmp_path / "runs" / "seed4")
    assert alone["loss"] == result["runs"][0]["loss"]


def test_the_same_call_skips_finished_runs_and_continues_with_the_others(
    train, tmp_path, settings, monkeypatch
):
    whole = train(out=tmp_path / "whole", **settings, seeds=2)
    taken, real = [], TrainingStep._loss

    def interrupted(self, batch):
        taken.append(batch)
        if len(taken) == 8 + 6:  # the second epoch of the second run
            raise KeyboardInterrupt
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(out=tmp_path / "broken", **settings, seeds=2)
    first = (tmp_path / "broken" / "seed0" / "run.json").stat().st_mtime_ns
    result = train(out=tmp_path / "broken", **settings, seeds=2)
    assert (tmp_path / "broken" / "seed0" / "run.json").stat().st_mtime_ns == first
    assert all(
        equal(tmp_path / "broken" / seed, tmp_path / "whole" / seed) for seed in ("seed0", "seed1")
    )
    assert result["top1"] == whole["top1"]


def test_runs_of_other_settings_are_refused(train, tmp_path, settings):
    settings["epochs"] = 1
    train(out=tmp_path / "runs", **settings, seeds=1)
    with pytest.raises(UsageError, match="other settings"):
        train(out=tmp_path / "runs", **{**settings, "lr": 0.5}, seeds=1)
    with pytest.raises(UsageError, match="holds a run"):
        train(out=tmp_path / "runs" / "seed0", **settings, seeds=1)


def test_runs_of_other_images_or_another_way_are_refused(train, tmp_path, settings, pictures):
    settings["epochs"] = 1
    train(out=tmp_path / "runs", **settings, seeds=1)
    with pytest.raises(UsageError, match="other settings"):
        train(out=tmp_path / "runs", **{**settings, "recipe": "common", "quick": True}, seeds=1)
    others = tmp_path / "others"
    shutil.copytree(pictures, others)
    again = train(out=tmp_path / "runs", **{**settings, "data": others}, seeds=1)
    assert again["top1"]["n"] == 1
    for number, path in enumerate(sorted((others / "train").rglob("*.png"))):
        cv2.imwrite(str(path), cv2.imread(str(path)) // 2 + number)
    with pytest.raises(DataError, match="was trained on are not in"):
        train(out=tmp_path / "runs", **{**settings, "data": others}, seeds=1)


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--seeds", "2", "--resume"]])
def test_wrong_use_is_reported(tmp_path, pictures, words, capsys):
    assert main(["train", "--data", str(pictures), "--out", str(tmp_path / "runs"), *words]) == 2
    assert "--seeds" in capsys.readouterr().err


def test_the_command_line_prints_one_object(tmp_path, settings, capsys):
    words = [
        str(word)
        for name, value in {**settings, "epochs": 1}.items()
        for word in (f"--{name.replace('_', '-')}", value)
    ]
    assert main(["train", *words, "--out", str(tmp_path / "runs"), "--seeds", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"]["n"] == 2
