"""Bars are drawn on a terminal only, and the log appears above them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from finedge.progress import progress_bar, watched
from tests.finedge.in_terminal import ROOT, in_terminal, plain

STEPS = """
import logging
from finedge.cli import logs_to_stderr
from finedge.progress import watched
logs_to_stderr()
for item in watched("abc", "reading", total=3):
    logging.getLogger("finedge").info("item %s", item)
print("the end")
"""


def test_a_bar_on_a_terminal_and_the_log_above_it():
    code, out, _ = in_terminal("-c", STEPS, stderr=True)
    assert code == 0
    shown = plain(out)
    assert "reading" in shown
    assert "3/3" in shown
    assert all(f"item {item}" in shown for item in "abc")
    last = shown.rstrip().splitlines()[-1]
    assert last.strip() == "the end"


def test_a_name_in_the_text_is_shown_as_it_is():
    name = "a{b}[red]\\x1b]0;x"
    code = f"from finedge.progress import watched; list(watched([1], '{name}', total=1))"
    _, out, _ = in_terminal("-c", code, stderr=True)
    assert "a{b}[red]\\x1b]0;x" in plain(out)
    assert "\x1b]" not in out


def test_a_pipe_gets_no_bar():
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "the end\n"
    assert done.stderr == "".join(f"INFO item {item}\n" for item in "abc")


def test_watched_yields_the_items_and_passes_errors_on():
    assert list(watched(iter([1, 2]), "x", total=2)) == [1, 2]
    with pytest.raises(KeyError), progress_bar("x", 2):
        raise KeyError


NESTED = """
from finedge.progress import progress_bar, watched
for item in watched("ab", "outer"):
    with progress_bar("inner", 1) as advance:
        advance(1)
"""


def test_a_step_inside_a_step_draws_no_second_bar():
    code, out, _ = in_terminal("-c", NESTED, stderr=True)
    assert code == 0
    assert "outer" in plain(out)
    assert "inner" not in plain(out)
