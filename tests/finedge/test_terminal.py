"""What a terminal shows, and that a pipe gets JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from finedge.cli import main
from finedge.commands import COMMANDS
from finedge.tables import generic
from tests.finedge.in_terminal import ROOT, in_terminal, plain

BUNDLE = str(ROOT / "examples" / "birds.finedge")
RESULTS = json.loads(Path(__file__).with_name("results.json").read_text())
# `classify` writes lines of its own. What `doctor` returns depends on the machine: it is run.
WITHOUT_RECORD = {"classify", "doctor", "serve"}
EACH = [(name, i) for name, results in RESULTS.items() for i in range(len(results))]
POISON = "[bold]\x1b]0;title\x07\x1b[2J"
# Runs a command of the table whose function returns, or fails with, a recorded result.
STUB = """
import json, sys
from finedge import cli, commands
from finedge.errors import GateError
name, result, fails, *words = sys.argv[1:]
result = json.loads(result)
def function():
    if fails == "yes":
        raise GateError("below the gate", result=result)
    return result
commands.Command.load = lambda self: function
sys.exit(cli.main([*name.split(), *words]))
"""


def stub(name: str, result: object, *words: str, fails: bool = False) -> tuple[str, ...]:
    return ("-c", STUB, name, json.dumps(result), "yes" if fails else "no", *words)


def text(name: str, result: object, *, columns: int = 80) -> str:
    console = Console(width=columns, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(COMMANDS[name].renderer()(result), crop=False)
    return capture.get()


def test_every_command_has_a_recorded_result():
    assert set(COMMANDS) - WITHOUT_RECORD == set(RESULTS)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_RECORD))
def test_a_terminal_gets_tables_and_no_json(name):
    code, out, err = in_terminal(*stub(name, RESULTS[name][0]))
    assert (code, err) == (0, "")
    assert plain(out) == text(name, RESULTS[name][0])


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_RECORD))
def test_json_on_a_terminal_is_the_json_of_a_pipe(name):
    expected = json.dumps(RESULTS[name][0]) + "\n"
    assert in_terminal(*stub(name, RESULTS[name][0], "--json")) == (0, expected, "")
    words = [sys.executable, *stub(name, RESULTS[name][0])]
    done = subprocess.run(words, capture_output=True, check=True)
    assert done.stdout == expected.encode()


@pytest.mark.parametrize(("name", "number"), EACH)
@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(name, number, columns):
    lines = text(name, RESULTS[name][number], columns=columns).splitlines()
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(("name", "number"), EACH)
def test_nothing_is_lost_on_a_narrow_terminal(name, number):
    """Words may break; at 36 columns every character of the wide table is still there."""
    narrow, wide = (text(name, RESULTS[name][number], columns=c) for c in (36, 500))
    if name != "benchmark":  # it has more columns than that
        assert sorted(filter(str.isalnum, narrow)) == sorted(filter(str.isalnum, wide))


@pytest.mark.parametrize(("name", "number"), EACH)
def test_text_of_others_has_no_power_over_the_terminal(name, number):
    shown = text(name, poisoned(RESULTS[name][number]))
    assert "\x1b" not in shown
    assert "\x07" not in shown


def poisoned(value: object) -> object:
    """Return a result with control characters and markup in every text, and in class labels."""
    if isinstance(value, dict):
        labels = value.keys() == {"n", "top1"}
        return {k: poisoned(v) if not labels else v for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(entry) for entry in value]
    return value + POISON if isinstance(value, str) else value


def test_labels_that_are_keys_are_cleaned_too():
    result = RESULTS["evaluate"][1]
    classes = {label + POISON: record for label, record in result["classes"].items()}
    shown = text("evaluate", {**result, "classes": classes}, columns=200)
    assert "\x1b" not in shown
    assert "dusky-finch[bold]\\x1b]0;title\\x07" in shown


@pytest.mark.parametrize(
    ("name", "number", "line"),
    [
        ("verify", 1, "the first that diverges is tap/backbone.bn2"),
        ("train", 1, "top-1 of 2 runs: mean 91.0 %, 90.0 % to 92.0 %"),
        ("evaluate", 0, "25.0 % (12.0 to 44.9 %)"),
        ("evaluate", 3, "3 images were trained on too"),
        ("benchmark", 1, "INVALID: small int8 single-stream: p99 was asked for"),
        ("data check", 1, "is cut short: 12 of 3456 bytes"),
        ("deploy", 1, "was rolled back; the board is as before"),
        ("build", 0, "small.finedge holds no model.fp16.onnx"),
        ("build", 1, "1 convolution is not INT8: conv_0"),
        ("calibrate", 1, "93.1 %"),
        ("calibrate", 1, "no method is closer to float than max"),
        ("calibrate", 1, "0.00504"),
        ("calibrate", 1, "node_add_266/projection"),
        ("calibrate", 1, "at most 1 points of top-1 may be lost"),
    ],
)
def test_what_matters_is_said(name, number, line):
    assert line in text(name, RESULTS[name][number], columns=200)


def test_the_first_stage_that_diverges_is_marked_once():
    shown = text("verify", RESULTS["verify"][1])
    (line,) = (line for line in shown.splitlines() if line.startswith("FIRST"))
    assert "tap/backbone.bn2" in line


def test_an_error_shows_its_result_and_then_its_message():
    code, out, err = in_terminal(*stub("verify", RESULTS["verify"][1], fails=True))
    assert code == 5
    assert "FIRST" in out
    assert err == "finedge: below the gate\n"
    code, out, err = in_terminal(*stub("verify", RESULTS["verify"][1], "--json", fails=True))
    assert (code, json.loads(out)) == (5, RESULTS["verify"][1])


def test_a_part_of_a_result_is_shown_by_the_generic_table():
    """A file that fails its parity at export has its numbers alone."""
    parity = {"max_abs": 2.5, "limit": 0.1, "images": 8, "own_error": 0.01}
    code, out, _ = in_terminal(*stub("export", parity, fails=True))
    assert code == 5
    assert "own error" in out
    assert "max abs" in out


def test_no_color_is_respected():
    coloured = in_terminal(*stub("verify", RESULTS["verify"][1]))[1]
    without = in_terminal(*stub("verify", RESULTS["verify"][1]), NO_COLOR="1")[1]
    assert "\x1b[31m" in coloured.replace("1;31", "31")
    assert "31m" not in without
    assert "32m" not in without


def test_the_generic_table_shows_nested_names_lists_and_nothing():
    console = Console(width=60, no_color=True)
    result = {"a_b": {"c": 1, "d": [1, 2, 3, 4, 5, 6, 7]}, "e": None, "f": [], "g": [{"h": 2}]}
    with console.capture() as capture:
        console.print(generic(result))
    lines = [line.split(maxsplit=1) for line in capture.get().replace(" / ", "/").splitlines()]
    assert [key for key, _ in lines] == ["a", "a", "e", "f", "g"]
    assert capture.get().count("and 2 more") == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_json_may_stand_anywhere(place, monkeypatch, capsys):
    words = ["data", "list"]
    words.insert(place, "--json")
    if place == 1:  # not inside a name of two words
        words = ["--json", "data", "list"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["datasets"]


def test_help_names_the_option(capsys):
    assert main(["--help"]) == 0
    assert "--json" in capsys.readouterr().out
    assert main(["doctor", "--help"]) == 0
    assert "--json" in capsys.readouterr().out


# --- the commands themselves, on the shipped bundle -----------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("data list", "CUB-200-2011"),
        ("data render {out}/data --classes 2 --train 1 --val 0 --test 0", "2 images of 2 species"),
        ("verify {bundle} --variants fp32", "stages pass, 0 fail"),
        ("serve-config triton {bundle} --out {out}/models", "config.pbtxt"),
        ("doctor", "power and heat"),
    ],
)
def test_a_real_run_on_a_terminal(words, line, tmp_path):
    arguments = words.format(bundle=BUNDLE, out=tmp_path).split()
    code, out, err = in_terminal("-m", "finedge", *arguments)
    assert code == 0, err
    assert line in plain(out)
    assert "{" not in out
