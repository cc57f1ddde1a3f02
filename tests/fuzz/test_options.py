"""Command lines of anybody: each ends with a documented exit code."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from finedge import cli
from finedge.cli import COMMANDS, Command, main
from finedge.errors import SystemProblem
from tests.fuzz.mutate import SEEDS

CODES = {0, 1, 2, 3, 4, 5, 6, 7, 130}
LONG = "x" * 5000
VALUES = [
    "", "-", "--", "a", "-1", "0", "1", "1.5", "1e999", "nan", "inf", "true", "None", "[]", "{}",
    "10s", "1,2", "fp32", "int8,fp32", ".", "..", "no/such/folder", "é", "\udcff", "\n", "\x1b[31m",
    "%s", "$HOME", LONG, "9" * 400, "--help", "-h", "--no-such", "=", "--=", "@file",
]  # fmt: skip
# These refuse an argument that is not a bundle, run or folder at once. The others would download,
# render, train or examine the machine.
REAL = (
    "report",
    "evaluate",
    "verify",
    "classify",
    "serve",
    "calibrate",
    "benchmark",
    "build",
    "serve-config",
    "explain",
    "export",
)


@pytest.fixture
def functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Callable[..., Any]]]:
    """The functions of all commands whose packages are here, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, command in COMMANDS.items():
        with suppress(SystemProblem):
            found[name] = command.load()
    logger = logging.getLogger("finedge")
    handlers = logger.handlers, logger.propagate, logger.level
    yield found
    logger.handlers, logger.propagate, logger.level = handlers


def stub(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the same command line that does nothing."""

    @functools.wraps(function)
    def quiet(*_: Any, **__: Any) -> None:
        return None

    return quiet


def command_line(name: str, function: Callable[..., Any], chance: Random) -> list[str]:
    """Return words after a command: its options with odd values, and odd words."""
    options = [f"--{p.replace('_', '-')}" for p in inspect.signature(function).parameters]
    words = name.split()
    for _ in range(chance.randint(0, 5)):
        value = chance.choice(VALUES)
        option = chance.choice(options or ["--x"])
        words += chance.choice(([value], [option, value], [f"{option}={value}"], [option]))
    return (
        words if chance.random() < 0.95 else [*words[: chance.randint(0, 1)], chance.choice(VALUES)]
    )


def every(examples: int, check: Callable[[int], None]) -> None:
    settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )(given(SEEDS)(check))()


@pytest.mark.parametrize("examples", [100, pytest.param(4_000, marks=pytest.mark.slow)])
def test_no_command_line_raises_an_untyped_error(
    functions: dict[str, Callable[..., Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    examples: int,
) -> None:
    by_target = {COMMANDS[name].target: stub(function) for name, function in functions.items()}
    monkeypatch.setattr(Command, "load", lambda self: by_target[self.target])

    def check(seed: int) -> None:
        chance = Random(seed)
        name = chance.choice(sorted(functions))
        words = command_line(name, functions[name], chance)
        assert main(words) in CODES, words
        capsys.readouterr()

    every(examples, check)


@pytest.mark.parametrize("examples", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_command_without_a_bundle_raises_an_untyped_error(
    functions: dict[str, Callable[..., Any]], capsys: pytest.CaptureFixture[str], examples: int
) -> None:
    here = [name for name in REAL if name in functions]

    def check(seed: int) -> None:
        chance = Random(seed)
        name = chance.choice(here)
        words = command_line(name, functions[name], chance)
        assert main(words) in CODES, words
        capsys.readouterr()

    every(examples, check)


def test_the_codes_are_those_of_the_error_tree() -> None:
    from finedge import errors

    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FinedgeError)
    ]
    assert {0, cli.INTERRUPTED, *(kind.exit_code for kind in kinds)} == CODES
