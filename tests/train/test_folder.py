"""A run's folder at every moment: new, half-made, killed, full, foreign."""

import errno
import json
import os
import shutil

import pytest
from safetensors.torch import load_file

from finedge import files, temporary_files
from finedge.errors import DataError, SystemProblem, UsageError
from finedge.train.folder import FILES, begin, require_new
from finedge.train.page import PAGE
from finedge.train.run import load_run

WRITES = len(FILES)  # of a run's beginning, one a file
LEFT = (
    ".checkpoint.safetensors.new-x0123abcd",
    ".run.json.new-x89efabcd",
)  # as a kill between write and rename leaves them


@pytest.fixture(scope="module")
def whole(train, pictures, tmp_path_factory):
    """The run that every broken one must end as."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(out=out, **small(pictures))
    return out


def small(pictures):
    more = {
        "model": "plain",
        "backbone": "mobilenetv2_035",
        "weights": "none",
        "size": 32,
        "batch_size": 8,
    }
    return {"data": pictures, **more, "epochs": 1, "lr": 0.02, "device": "cpu"}


def weights(run):
    return {
        name: tensor.numpy().tobytes()
        for name, tensor in load_file(run / "checkpoint.safetensors").items()
    }


def stopped_at(monkeypatch, write, error):
    """Let the `write`-th write of a file (from 0) raise `error` before the rename."""
    real, done = os.fsync, []

    def fsync(handle):
        done.append(handle)
        if len(done) == write + 1:
            raise error
        real(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.parametrize("write", range(WRITES))
def test_after_a_full_disk_at_any_write_the_same_command_starts_again(
    train, whole, pictures, tmp_path, monkeypatch, write, caplog
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopped_at(patch, write, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OSError, match="No space"):
            train(out=out, **small(pictures))
    with pytest.raises(DataError, match=r"no run\.json"):
        train(out=out, resume=True)
    (out / LEFT[0]).write_bytes(b"half a checkpoint")
    with caplog.at_level("WARNING", "finedge"):
        train(out=out, **small(pictures))
    assert "starts again" in caplog.text
    assert weights(out) == weights(whole)
    assert sorted(p.name for p in out.iterdir()) == sorted((*FILES, PAGE))


@pytest.mark.parametrize("write", [WRITES, WRITES + 1])
def test_a_full_disk_after_an_epoch_leaves_a_run_that_can_be_resumed(
    train, whole, pictures, tmp_path, monkeypatch, write
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopped_at(patch, write, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OSError, match="No space"):
            train(out=out, **small(pictures))
    for name in LEFT:
        (out / name).write_bytes(b"half")
    monkeypatch.setattr(temporary_files, "_swept", set())  # a new process
    train(out=out, resume=True, device="cpu")
    assert weights(out) == weights(whole)
    assert sorted(p.name for p in out.iterdir()) == sorted((*FILES, PAGE))


def test_seeds_continue_where_the_last_checkpoint_was_not_written(
    train, whole, pictures, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stopped_at(
            patch, WRITES + 1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        )  # the metrics have the epoch, the checkpoint has not
        with pytest.raises(OSError, match="No space"):
            train(out=tmp_path, seeds=1, **small(pictures))
    train(out=tmp_path, seeds=1, **small(pictures))
    assert weights(tmp_path / "seed0") == weights(whole)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {LEFT[0]: ""},
        {"metrics.jsonl": ""},
        {"metrics.jsonl": "", "checkpoint.safetensors": "x", "split.json": "{}"},
    ],
)
def test_an_empty_or_half_made_folder_is_taken(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    require_new(tmp_path)
    begin(tmp_path, {"split.json": "{}", "run.json": "new"}, save=lambda: None)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "split.json": "{}",
        "run.json": "new",
    }


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "ten years"},
        {"metrics.jsonl": "", "thesis.tex": "ten years"},
        {
            "metrics.jsonl": '{"epoch": 1}\n',
            "checkpoint.safetensors": "a week",
        },  # a training whose record was lost
        {"checkpoint.safetensors": "somebody's"},
        {"split.json": "somebody's"},
        {".run.json.backup": "somebody's", "metrics.jsonl": ""},
    ],
)
def test_what_is_no_beginning_of_a_run_is_unchanged(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="not a run"):
        require_new(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == files


def test_data_that_is_refused_leaves_nothing(train, tmp_path, pictures):
    broken = shutil.copytree(pictures, tmp_path / "broken")
    for image in (broken / "train" / "red").iterdir():
        image.write_bytes(b"no picture")
    with pytest.raises(DataError):
        train(out=tmp_path / "run", **{**small(pictures), "data": broken})
    assert not (tmp_path / "run").exists()


def test_an_unwritable_out_is_reported_before_the_data_is_read(train, tmp_path, pictures):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SystemProblem, match=r"--out: .*Not a directory"):
        train(out=tmp_path / "file" / "run", **{**small(pictures), "data": tmp_path / "nowhere"})
    assert (tmp_path / "file").read_text() == "x"


def test_a_whole_run_says_so(whole):
    assert json.loads((whole / "run.json").read_text())["format"] == 1
    assert load_run(whole).record["recipe"]["epochs"] == 1
    with pytest.raises(UsageError, match="--resume"):
        require_new(whole)
