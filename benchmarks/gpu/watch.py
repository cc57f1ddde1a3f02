"""One part in a process of its own: its rows are passed on as they come."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.results import Results, Row, parsed

LOG = "log.txt"
LONGEST_LOG = 60_000  # characters of a part's stderr
GRACE = 5.0  # seconds that a part has past its limit to say that it stopped


def watch(
    name: str, results: Results, *, command: Sequence[str], limit: float, folder: Path
) -> None:
    """Run a part and write its rows, then the row of its status.

    Args:
        name: of the part.
        results: where the rows go.
        command: what runs the part; it prints one JSON object a line.
        limit: seconds after which the part stops by itself; `GRACE` later it is killed.
        folder: of the run; the end of the part's stderr goes to its log.
    """
    start, rows = time.monotonic(), 0
    status: Row = {}
    log = folder / f"{name}.stderr"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        timer = threading.Timer(limit + GRACE, _kill, args=(process,))
        timer.start()
        for line in process.stdout or ():
            row = parsed(line)
            if row is not None and "status" in row:
                status = row
            elif row is not None:
                results.add(name, row)
                rows += 1
        code = process.wait()
    killed = not timer.is_alive()
    timer.cancel()
    status = status or (_stopped(limit) if killed else _crashed(code, log))
    seconds = round(time.monotonic() - start, 1)
    results.add(name, {**status, "rows": rows, "seconds": seconds})
    _keep(log, folder / LOG)


def _kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def _stopped(limit: float) -> Row:
    return {"status": "stopped", "reason": f"{limit:.0f} s"}


def _crashed(code: int, log: Path) -> Row:
    lines = log.read_text(errors="replace").strip().splitlines()
    return {"status": "failed", "reason": f"exit code {code}: {lines[-1] if lines else 'silent'}"}


def _keep(log: Path, target: Path) -> None:
    """Append the end of a part's stderr to the log of the run."""
    text = log.read_text(errors="replace")[-LONGEST_LOG:]
    with target.open("a") as file:
        file.write(f"=== {log.stem}\n{text}\n")
    log.unlink()
