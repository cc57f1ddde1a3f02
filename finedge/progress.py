"""Progress bars on stderr, drawn only where stderr is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from finedge.terminal import log_console
from finedge.text import clean

Item = TypeVar("Item")


@contextmanager
def progress_bar(text: str, total: int, *, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a bar from 0 to `total` steps; it disappears at the end.

    Args:
        text: what is done, beside the bar.
        total: the number of steps.
        enabled: False draws none, e.g. in all but one of several processes.

    Yields:
        a function that advances the bar by a number of steps.

    Examples:
        >>> with progress_bar("calibrating", 3) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    from rich.progress import (  # here: most commands draw no bar, and it takes 40 ms to import
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = log_console()
    label = TextColumn("{task.description}", markup=False)  # the text may hold a file's name
    columns = (label, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    disabled = not (enabled and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=disabled) as bar:
        task = bar.add_task(clean(text), total=total)
        yield lambda steps: bar.advance(task, steps)


def watched(items: Iterable[Item], text: str, *, total: int) -> Iterator[Item]:
    """Yield `items`; each advances a bar of `total` steps by one."""
    with progress_bar(text, total) as advance:
        for item in items:
            yield item
            advance(1)
