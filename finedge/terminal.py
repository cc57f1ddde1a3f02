"""Who reads stdout: a person at a terminal, or a program.

A person gets tables and lines. A program gets JSON: in a pipe, in a file, and with `--json`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_REQUESTED: ContextVar[bool] = ContextVar("json_requested", default=False)


@contextmanager
def json_option(value: bool) -> Iterator[None]:
    """Set whether `--json` was given, for the commands that run inside."""
    token = _REQUESTED.set(value)
    try:
        yield
    finally:
        _REQUESTED.reset(token)


def json_requested() -> bool:
    """Tell whether the command line holds `--json`."""
    return _REQUESTED.get()


def for_people() -> bool:
    """Tell whether a person reads stdout: it is a terminal, and JSON was not requested."""
    return sys.stdout.isatty() and not json_requested()


@functools.cache
def log_console() -> Console:
    """Return the console on stderr that the log and the progress bars share.

    A line of the log then appears above a bar, not in it.
    """
    return console(stderr=True)


def console(*, stderr: bool = False) -> Console:
    """Return a console for tables. It writes colours to terminals only, and none with NO_COLOR."""
    from rich.console import Console  # here: rich takes 40 ms to import

    return Console(stderr=stderr, highlight=False, emoji=False)
