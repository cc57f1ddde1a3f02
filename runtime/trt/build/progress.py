"""Progress of a build on stderr, and a way to stop it early that leaves nothing half written.

The library reports phases that nest, so it has one bar per phase instead of the one bar of
`finedge.progress`.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


T = TypeVar("T")

POLL_SECONDS = 0.1


@dataclass
class Stop:
    """Whether the user wants to stop: a build checks it after each of its steps."""

    requested: bool = False

    def request(self) -> None:
        """Stop the build after the current step."""
        self.requested = True

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a stop was requested."""
        if self.requested:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Turn the first Ctrl-C into a stop request, so that the library can return by itself.

    The second ends the process.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield stop
        return

    def interrupt(_signal: int, _frame: object) -> None:
        stop.request()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
    stop.check()


def in_worker(call: Callable[[], T]) -> T:
    """Return what `call` returns; it runs in another thread, and its errors are raised here.

    Python handles signals between two steps of its main thread. That thread would have none while
    the library builds and reports its progress from threads of its own: Ctrl-C would be seen when
    the build is done. Here it only waits. A signal interrupts the wait, unless the system delivers
    it to another thread; then it is seen at the next `POLL_SECONDS`.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        while not future.done():
            wait([future], timeout=POLL_SECONDS)
        return future.result()


@contextmanager
def progress_bars(title: str) -> Iterator[Bars]:
    """Show the phases of a build below `title`; nothing is drawn where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        progress.add_task(title, total=None)
        yield Bars(progress)


@dataclass
class Bars:
    """One bar for each phase that runs; phases nest."""

    progress: Progress
    tasks: dict[str, TaskID] = field(default_factory=dict)

    def start(self, phase: str, *, steps: int, depth: int) -> None:
        """Add a bar, indented below the phase that it is part of."""
        self.tasks[phase] = self.progress.add_task("  " * depth + phase, total=steps)

    def step(self, phase: str, done: int) -> None:
        """Move a bar."""
        if phase in self.tasks:
            self.progress.update(self.tasks[phase], completed=done)

    def finish(self, phase: str) -> None:
        """Remove a bar."""
        if phase in self.tasks:
            self.progress.remove_task(self.tasks.pop(phase))


def monitor(trt: Any, bars: Bars, stop: Stop) -> Any:
    """Return an IProgressMonitor that shows `bars` and ends the build after a stop request."""
    return _monitor_class(trt)(bars, stop)


@functools.cache
def _monitor_class(trt: Any) -> Callable[[Bars, Stop], Any]:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self, bars: Bars, stop: Stop) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bars, self.stop = bars, stop
            self.depths: dict[str | None, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.depths[phase] = self.depths.get(parent, 0) + 1
            self.bars.start(phase, steps=steps, depth=self.depths[phase])

        def step_complete(self, phase: str, step: int) -> bool:
            self.bars.step(phase, step + 1)
            return not self.stop.requested

        def phase_finish(self, phase: str) -> None:
            self.bars.finish(phase)

    return Monitor
