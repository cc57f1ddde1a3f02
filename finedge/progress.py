"""Progress bars on stderr, drawn only where stderr is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def progress_bar(text: str, total: int, *, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a bar from 0 to `total` steps; it disappears at the end.

    Yields:
        a function that advances the bar by a number of steps.
    """
    from rich.console import (
        Console,
    )  # here: most commands draw no bar, and rich takes 40 ms to import
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    disabled = not (enabled and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=disabled) as bar:
        task = bar.add_task(text, total=total)
        yield lambda steps: bar.advance(task, steps)


def watched(items: Iterable[Item], text: str, *, total: int) -> Iterator[Item]:
    """Yield `items`; each advances a bar of `total` steps by one."""
    with progress_bar(text, total) as advance:
        for item in items:
            yield item
            advance(1)
