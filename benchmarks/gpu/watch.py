"""One part in a process of its own: its rows are passed on as they come."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from benchmarks.gpu.results import Results, Row, parsed

LOG = "log.txt"
LAST_LINES = 400  # of a part's stderr
GRACE = 5.0  # seconds that a part has past its limit to say that it stopped


@dataclass
class Output:
    """What a part has written so far: the number of its rows, its status, the end of its stderr."""

    rows: int = 0
    status: Row | None = None
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def read_rows(self, name: str, stream: IO[str], results: Results) -> None:
        """Pass rows on until the stream ends."""
        for line in stream:
            row = parsed(line)
            if row is not None and "status" in row:
                self.status = row
            elif row is not None:
                results.add(name, row)
                self.rows += 1

    def read_errors(self, stream: IO[str]) -> None:
        """Keep the last lines in memory: a full disk must not fail the part."""
        self.errors.extend(stream)


def watch(
    name: str, results: Results, *, command: Sequence[str], limit: float, folder: Path
) -> None:
    """Run a part and write its rows, then the row of its status.

    Whatever the part started is killed with it.

    Args:
        name: of the part.
        results: where the rows go.
        command: what runs the part; it prints one JSON object a line.
        limit: seconds after which the part stops by itself; `GRACE` later it is killed.
        folder: of the run; the end of the part's stderr goes to its log.
    """
    start, output = time.monotonic(), Output()
    try:
        code = _run(name, results, command=command, limit=limit, output=output)
        status = output.status or (_stopped(limit) if code is None else _crashed(code, output))
    except OSError as error:  # no process could be started
        status = {"status": "failed", "reason": str(error)}
    seconds = round(time.monotonic() - start, 1)
    results.add(name, {**status, "rows": output.rows, "seconds": seconds})
    with suppress(OSError), (folder / LOG).open("a") as file:
        file.write(f"=== {name}\n{''.join(output.errors)}\n")


def _run(
    name: str, results: Results, *, command: Sequence[str], limit: float, output: Output
) -> int | None:
    """Return the exit code, or None where the part had to be killed."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    readers = (
        threading.Thread(target=output.read_rows, args=(name, process.stdout, results)),
        threading.Thread(target=output.read_errors, args=(process.stderr,)),
    )
    for reader in readers:
        reader.daemon = True
        reader.start()
    code: int | None = None
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(limit + GRACE)
    # Its whole group: a part that was killed leaves trainings and profilers on the GPU.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for reader in readers:
        reader.join(GRACE)
    return code


def _stopped(limit: float) -> Row:
    return {"status": "stopped", "reason": f"{limit:.0f} s"}


def _crashed(code: int, output: Output) -> Row:
    last = output.errors[-1].strip() if output.errors else "nothing on stderr"
    return {"status": "failed", "reason": f"exit code {code}: {last}"}
