from __future__ import annotations

import os
import subprocess
import sys

import pytest

from finedge import commands
from finedge.cli import main
from finedge.commands import COMMANDS
from finedge.errors import DataError, GateError, SystemProblem


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "finedge", *arguments], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command_and_imports_nothing_heavy():
    heavy = ("torch", "onnxruntime", "cv2", "numpy", "tyro", "rich")
    code = "import sys, finedge.cli as c; c.main(['--help'])"
    code += f"; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
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
    except SystemProblem as missing:
        pytest.skip(str(missing))
    help_ = run(*name.split(), "--help")
    assert help_.returncode == 0
    assert "usage" in help_.stdout.lower()
    assert main([*name.split(), "--no-such-option"]) == 2


# Their functions move to a command.py: remove them from here then.


@pytest.mark.parametrize("name", COMMANDS)
def test_every_function_lives_in_a_command_module(name):
    commands = [COMMANDS[name], COMMANDS[name].for_run]
    targets = {command.target for command in commands if command}
    assert all(target.split(":")[0].endswith(".command") for target in targets)


def test_the_overview_names_every_command_in_80_columns():
    lines = commands.overview().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in COMMANDS)


def serve(monkeypatch, function):
    monkeypatch.setitem(COMMANDS, "doctor", commands.Command("x:y", ""))
    monkeypatch.setattr(commands.Command, "load", lambda self: function)


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
        (FileNotFoundError(2, "No such file or directory", "f"), 3),
        (OSError(24, "Too many open files"), 3),
        (OSError("a library's own words"), 3),
        (ConnectionResetError(104, "Connection reset by peer"), 3),
        (MemoryError(), 3),
        (RecursionError("maximum recursion depth exceeded"), 4),
        (ValueError("embedded null byte"), 4),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), 4),
        (RuntimeError("Symlink loop from '/a'"), 3),
        (SystemExit(2), 2),
    ],
)
def test_exit_codes(monkeypatch, error, code):
    def fail() -> None:
        raise error

    serve(monkeypatch, fail)
    assert main(["doctor"]) == code


def test_a_missing_package_is_answered_with_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(
        COMMANDS,
        "train",
        commands.Command("finedge.no_such_module_of_torch:train", "", extra="train"),
    )

    def missing(name):
        raise ModuleNotFoundError(f"No module named 'torch' ({name})", name="torch")

    monkeypatch.setattr(commands.importlib, "import_module", missing)
    assert main(["train"]) == 3
    assert "pip install 'finedge[train]'" in capsys.readouterr().err


def test_a_missing_system_library_names_its_debian_package(monkeypatch, capsys):
    def missing(_name):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(commands.importlib, "import_module", missing)
    assert main(["doctor"]) == 3
    assert "apt-get install libgl1" in capsys.readouterr().err


def test_a_bug_still_shows_its_traceback(monkeypatch):
    def fail() -> None:
        raise ZeroDivisionError

    serve(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


BUG = """
import sys, threading
from tyro.conf import Positional
from finedge import cli, commands
def fail(word: Positional[str]):
    work = threading.Thread(target=fail_in, args=[word])
    work.start()
    work.join()
    fail_in(word)
def fail_in(word):
    raise KeyError(word + "\\x1b[31m")
class Bug:
    for_run, load = None, staticmethod(lambda: fail)
commands.COMMANDS["doctor"] = Bug
sys.argv = ["finedge", "doctor", "rtsp://bob:S3CRET@cam/x"]
sys.exit(cli.main())
"""


def test_a_bugs_traceback_shows_no_secret_and_no_control_character(tmp_path):
    (tmp_path / "bug.py").write_text(BUG)
    done = shell("bug.py", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 2  # of the thread, of the command
    assert done.stderr.count("rtsp://bob:***@cam/x") == 2
    assert "S3CRET" not in done.stderr
    assert "\x1b" not in done.stderr


STREAMS = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.parametrize("closed", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize(
    ("words", "code"), [("--help", 0), ("--version", 0), ("nosuch", 2), ("verify nothing", 4)]
)
def test_a_closed_stream_is_as_the_null_device(tmp_path, words, code, closed):
    done = shell(f"-m finedge {words} {closed}", tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_the_next_file_does_not_become_the_output(tmp_path):
    code = "import os, finedge.cli as c; c.open_streams(); f = open('kept', 'w')"
    code += "; os.write(1, b'noise'); f.close()"
    assert shell(f'-c "{code}" >&-', tmp_path).returncode == 0
    assert (tmp_path / "kept").read_bytes() == b""


@pytest.mark.parametrize("words", ["--help", "--version", "verify --help"])
def test_output_that_cannot_be_written_ends_with_3(tmp_path, words):
    done = shell(f"-m finedge {words} >/dev/full", tmp_path)
    assert done.returncode == 3
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_who_reads_is_no_error(tmp_path):
    done = shell("-m finedge --help | head -c 1; exit ${PIPESTATUS[0]}", tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_name_that_is_no_unicode_is_reported_in_any_encoding(tmp_path):
    done = shell(
        "-m finedge verify $'a\\xff\\u00e9'", tmp_path, PYTHONIOENCODING="ascii:strict", LC_ALL="C"
    )
    assert done.returncode == 4
    assert "manifest.json" in done.stderr


BUSY = """
import sys, threading
import cv2, numpy
from finedge.cli import main
image, started = numpy.zeros((300, 300, 3), numpy.uint8), threading.Event()
def work():
    while True:
        cv2.GaussianBlur(image, (31, 31), 9)
        started.set()
threading.Thread(target=work, name="finedge-reader", daemon=True).start()
started.wait()
sys.exit(main())
"""


@pytest.mark.parametrize(("words", "code"), [("--version", 0), ("nosuch", 2)])
def test_a_thread_that_does_not_end_does_not_abort_the_process(tmp_path, words, code):
    (tmp_path / "busy.py").write_text(BUSY)
    done = shell(f"busy.py {words} | cat; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert done.returncode == code, done.stderr
    assert "finedge" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["report", "evaluate", "verify", "benchmark", "classify", "data render", "serve-config"]
)
def test_links_in_a_circle_have_an_exit_code(tmp_path, name, capsys):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert main([*name.split(), str(tmp_path / "a")]) in (2, 3, 4)
    assert "finedge: " in capsys.readouterr().err or name == "serve-config"


def shell(words, folder, **environment):
    line = f"{sys.executable} {words}"
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
    )
