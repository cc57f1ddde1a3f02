"""Two real gloo processes on the CPU against one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

# Relative: the two halves of a gradient are summed in another order. At this rate 20 steps give a
# difference of 2e-7. At five times the rate an untrained network without batch statistics amplifies
# any rounding to 1e-3, also with one process that accumulates.
LOSSES = 1e-5
EPOCHS = 20  # of one step each, so that each row of the metrics holds the loss of one step
HEAD = "head_epochs=2"

# `finedge`, which also notes its process and every file of the run that it opens for writing.
AUDITED = """
import os, sys
notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
note = lambda *words: os.write(notes, (" ".join([os.environ["RANK"], *words]) + "\\n").encode())
def hook(event, arguments):
    if event != "open" or not str(arguments[0]).startswith(os.environ["WATCHED"]):
        return
    if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        note("wrote", str(arguments[0]))
sys.addaudithook(hook)
note("pid", str(os.getpid()))
from finedge.cli import main
sys.exit(main())
"""

# One process fails, the other waits for it.
FAILING = """
import sys
from finedge import cli
from finedge.errors import DataError
from finedge.train.distributed import joined

def command():
    '''Fail.'''
    with joined("cpu") as world:
        if world.rank == 1:
            raise DataError("a broken image")
        world.wait()

cli.COMMANDS["train"] = cli.Command("__main__:command", "fail")
sys.exit(cli.main(["train"]))
"""


class Launch:
    """`finedge train` in two processes of torchrun."""

    def __init__(self, folder, out, options):
        self.notes, script = folder / "notes", folder / "audited.py"
        self.notes.unlink(missing_ok=True)
        script.write_text(AUDITED)
        words = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            script,
            "train",
            "--out",
            out,
            *options,
        ]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NOTES": str(self.notes),
            "WATCHED": str(out),
        }
        self.process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self):
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err

    def noted(self, what):
        lines = (
            [line.split(" ", 2) for line in self.notes.read_text().splitlines()]
            if self.notes.exists()
            else []
        )
        return {(int(rank), value) for rank, word, value in lines if word == what}


@pytest.fixture(scope="module")
def settings(pictures, tmp_path_factory):
    """A training whose steps take 36 images: three batches of 12, or of 6 and 6.

    The backbone is not trained from the start, so DDP has other gradients later.
    """
    recipe = tmp_path_factory.mktemp("recipe") / "frozen.toml"
    recipe.write_text(
        "freeze_norm = true\nlr = 0.001\nema = 0.5\naccumulate = 3\n"
        '[options]\ndropout = 0.0\nhead_init = "small"\n'
    )
    names = {
        "data": pictures,
        "recipe": recipe,
        "model": "cnl",
        "backbone": "mobilenetv2_035",
        "weights": "none",
    }
    return {**names, "size": 32, "batch_size": 12, "epochs": EPOCHS, "set": HEAD, "device": "cpu"}


def command_line(settings):
    return [
        str(word)
        for name, value in settings.items()
        for word in (f"--{name.replace('_', '-')}", value)
    ]


@pytest.fixture(scope="module")
def two(settings, tmp_path_factory):
    """A run of two processes, with what they printed and noted."""
    folder = tmp_path_factory.mktemp("two")
    launch = Launch(folder, folder / "run", command_line(settings))
    code, out, err = launch.end()
    assert code == 0, err
    return folder / "run", launch, out, err


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_with_the_same_batch(train, two, settings, tmp_path):
    train(out=tmp_path / "one", **{**settings, "recipe": str(settings["recipe"]), "set": (HEAD,)})
    ones, twos = rows(tmp_path / "one"), rows(two[0])
    assert len(ones) == EPOCHS
    assert ones[-1]["loss"] < 0.95 * ones[0]["loss"]
    assert [row["loss"] for row in twos] == pytest.approx([row["loss"] for row in ones], rel=LOSSES)
    assert [row["val"]["n"] for row in twos] == [row["val"]["n"] for row in ones] == [18] * EPOCHS
    assert [row["val"]["top1"] for row in twos] == [row["val"]["top1"] for row in ones]


def test_one_process_writes_and_speaks(two):
    _, launch, out, err = two
    assert {rank for rank, _ in launch.noted("pid")} == {0, 1}
    assert {rank for rank, _ in launch.noted("wrote")} == {0}
    assert json.loads(out)["epochs"] == EPOCHS
    assert err.count(f"epoch {EPOCHS}/{EPOCHS}") == 1


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(two, settings, tmp_path):
    out = tmp_path / "killed"
    launch = Launch(tmp_path, out, command_line(settings))
    while not (out / "metrics.jsonl").is_file() or len(rows(out)) < 3:
        assert launch.process.poll() is None, launch.end()
        time.sleep(0.02)
    for _, pid in launch.noted("pid"):
        os.kill(int(pid), signal.SIGKILL)
    assert launch.end()[0] != 0
    assert 3 <= len(rows(out)) < EPOCHS
    code, _, err = Launch(tmp_path, out, ["--resume", "--device", "cpu"]).end()
    assert code == 0, err
    assert "resuming after epoch" in err
    first, second = (load_file(run / "checkpoint.safetensors") for run in (two[0], out))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["loss"] for row in rows(two[0])] == [row["loss"] for row in rows(out)]


def test_a_batch_that_cannot_be_shared_is_reported_once(settings, tmp_path):
    code, out, err = Launch(
        tmp_path, tmp_path / "run", command_line({**settings, "batch_size": 7})
    ).end()
    assert code != 0
    assert (out, err.count("batch_size 7 for 2 processes")) == ("", 1)
    assert "exitcode  : 2" in err
    assert not (tmp_path / "run").exists()


def test_where_one_process_fails_all_end_with_its_code_and_one_message(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [sys.executable, tmp_path / "failing.py"]
    started = [
        subprocess.Popen(words, env={**place, "RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    errors = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [4, 4], errors
    assert ["a broken image" in text for text in errors] == [False, True]
    assert not any("Traceback" in text for text in errors)
