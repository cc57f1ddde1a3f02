"""Progress bars on stderr, drawn only where stderr is a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from finedge.sanitize import clean
from finedge.terminal import log_console

Item = TypeVar("Item")
# A terminal has room for one bar: a step inside another step draws none.
_drawing = threading.Lock()


@contextmanager
def progress_bar(
    text: str, total: int | None, *, enabled: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show a bar from 0 to `total` steps; it disappears at the end.

    Args:
        text: what is done, beside the bar.
        total: the number of steps; None shows that work goes on, and the steps so far.
        enabled: False draws none, e.g. in all but one of several processes.

    Yields:
        a function that advances the bar by a number of steps.

    Examples:
        >>> with progress_bar("calibrating", 3) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    if not (enabled and sys.stderr.isatty()) or not _drawing.acquire(blocking=False):
        yield lambda steps: None
        return
    try:
        with _bar(text, total) as advance:
            yield advance
    finally:
        _drawing.release()


@contextmanager
def _bar(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.progress import (  # here: in a pipe no bar is drawn, and it takes 40 ms to import
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    label = TextColumn("{task.description}", markup=False)  # the text may hold a file's name
    columns = (label, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=log_console(), transient=True) as bar:
        task = bar.add_task(clean(text), total=total)
        yield lambda steps: bar.advance(task, steps)


def watched(items: Iterable[Item], text: str, *, total: int | None = None) -> Iterator[Item]:
    """Yield `items`; each advances a bar of `total` steps by one, None if nobody knows how many."""
    with progress_bar(text, total) as advance:
        for item in items:
            yield item
            advance(1)
