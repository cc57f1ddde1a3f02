"""Long work looks at its output first.

A place that cannot be written is reported before anything is read, loaded or measured.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from finedge.cli import main

BUNDLE = Path(__file__).resolve().parents[2] / "examples" / "birds.finedge"

# Each has an input that is missing too: the output is what must be reported.
COMMANDS = {
    "train": "train --data {nowhere} --out {out}",
    "train --seeds": "train --data {nowhere} --out {out} --seeds 2",
    "export": "export {nowhere} --out {out}",
    "explain": "explain {bundle} {nowhere} --out {out}",
    "benchmark": "benchmark {bundle} --data {nowhere} --out {out}",
    "data get": "data get dogs {out}",
    "data render": "data render {out}",
}


def refusal(words, capsys):
    code = main(words)
    message = capsys.readouterr().err
    assert (code, "Traceback" in message) == (3, False), message
    return message


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_made_is_reported_first(command, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    places = {"out": tmp_path / "file" / "below", "nowhere": tmp_path / "nowhere", "bundle": BUNDLE}
    message = refusal(COMMANDS[command].format(**places).split(), capsys)
    assert "Not a directory" in message
    assert str(tmp_path / "file") in message
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.fixture
def read_only(tmp_path):
    """A bundle on a disk that is mounted to be read."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting needs root")
    try:
        shutil.copytree(BUNDLE, disk / "birds.finedge")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", [*COMMANDS, "calibrate"])
def test_a_disk_that_can_only_be_read_is_reported_first(command, read_only, tmp_path, capsys):
    words = {**COMMANDS, "calibrate": "calibrate {bundle} --data {nowhere}"}[command]
    places = {
        "out": read_only / "out",
        "nowhere": tmp_path / "nowhere",
        "bundle": read_only / "birds.finedge",
    }
    assert "Read-only file system" in refusal(words.format(**places).split(), capsys)
