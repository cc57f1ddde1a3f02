from __future__ import annotations

import subprocess
import sys

import pytest

from finedge import cli
from finedge.cli import COMMANDS, main
from finedge.errors import DataError, GateError


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "finedge", *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = "import sys, finedge.cli as c; c.main(['--help']); print([m for m in ('torch', 'onnxruntime', 'cv2', 'numpy', 'tyro') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in result.stdout for name in COMMANDS)
    assert result.stdout.endswith("[]\n")


def test_an_unknown_command_suggests_the_nearest():
    result = run("clasify")
    assert result.returncode == 2
    assert "did you mean 'classify'?" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_refuses_an_unknown_option(name):
    try:
        COMMANDS[name].load()
    except cli.SystemProblem as missing:
        pytest.skip(str(missing))
    helped, refused = run(*name.split(), "--help"), run(*name.split(), "--no-such-option")
    assert helped.returncode == 0
    assert "usage" in helped.stdout.lower()
    assert refused.returncode == 2


def serve(monkeypatch, function):
    monkeypatch.setitem(COMMANDS, "doctor", cli.Command("x:y", ""))
    monkeypatch.setattr(cli.Command, "load", lambda self: function)


def test_an_unknown_log_level_is_a_usage_error(monkeypatch, capsys):
    monkeypatch.setenv("FINEDGE_LOG", "loud")
    assert main(["doctor"]) == 2
    assert "DEBUG" in capsys.readouterr().err


def test_a_result_is_one_json_object(monkeypatch, capsys):
    serve(monkeypatch, lambda: {"a": 1})
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == '{"a": 1}\n'


def test_a_failed_gate_still_prints_its_numbers(monkeypatch, capsys):
    def fail() -> None:
        raise GateError("too low", expected="more", fix="train", result={"top1": 0.1})

    serve(monkeypatch, fail)
    assert main(["doctor"]) == 5
    captured = capsys.readouterr()
    assert captured.out == '{"top1": 0.1}\n'
    assert captured.err == "finedge: too low\n  expected: more\n  to do: train\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("x"), 4),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "f"), 3),
        (PermissionError(13, "Permission denied", "f"), 3),
        (OSError(30, "Read-only file system"), 3),
        (SystemExit(2), 2),
    ],
)
def test_exit_codes(monkeypatch, error, code):
    def fail() -> None:
        raise error

    serve(monkeypatch, fail)
    assert main(["doctor"]) == code


def test_a_missing_package_is_answered_with_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "train", cli.Command("finedge.no_such_module_of_torch:train", "", "train"))

    def missing(name):
        raise ModuleNotFoundError(f"No module named 'torch' ({name})", name="torch")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    assert main(["train"]) == 3
    assert "pip install 'finedge[train]'" in capsys.readouterr().err


def test_a_missing_system_library_names_its_debian_package(monkeypatch, capsys):
    def missing(_name):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    assert main(["doctor"]) == 3
    assert "apt-get install libgl1" in capsys.readouterr().err
