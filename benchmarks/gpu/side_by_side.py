"""Processes side by side on the one GPU: the rows that each prints, as they come."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gpu.results import Row, parsed


@dataclass(frozen=True)
class Job:
    """A process that prints one JSON object a line; `number` sets it apart from its likes."""

    name: str
    number: int
    command: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """A row of a job, or its end: `code` is the exit code, after `seconds`."""

    job: Job
    row: Row | None = None
    code: int | None = None
    seconds: float = 0.0


def events(
    jobs: Sequence[Job],
    *,
    most: int,
    seconds_left: Callable[[], float],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Event]:
    """Run the jobs in order, at most `most` at a time, until they end or the time does.

    A job starts only where there is as much time left as the longest one took. Those that the end
    of the time cuts off are killed, and have no event of their end.
    """
    waiting = list(jobs)
    running: dict[Job, subprocess.Popen[str]] = {}
    seen: queue.Queue[Event] = queue.Queue()
    longest = 0.0
    try:
        while waiting or running:
            while waiting and len(running) < most and seconds_left() > longest:
                job = waiting.pop(0)
                running[job] = _start(job, seen, environment)
            if not running:
                return
            try:
                event = seen.get(timeout=max(0.1, seconds_left()))
            except queue.Empty:
                return
            if event.row is None:
                del running[event.job]
                longest = max(longest, event.seconds)
            yield event
    finally:
        for process in running.values():
            process.kill()


def _start(
    job: Job, seen: queue.Queue[Event], environment: Mapping[str, str] | None
) -> subprocess.Popen[str]:
    start = time.monotonic()
    process = subprocess.Popen(job.command, stdout=subprocess.PIPE, text=True, env=environment)

    def follow() -> None:
        for line in process.stdout or ():
            row = parsed(line)
            if row is not None:
                seen.put(Event(job, row))
        seconds = round(time.monotonic() - start, 1)
        seen.put(Event(job, code=process.wait(), seconds=seconds))

    threading.Thread(target=follow, daemon=True).start()
    return process
