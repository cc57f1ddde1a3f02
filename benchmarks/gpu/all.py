"""Everything of finedge that needs an NVIDIA GPU, in one call of at most 8 minutes.

    python benchmarks/gpu/all.py OUT [--only numbers,timing] [--seconds 480] [--data DIR] [--bindings DIR]

Each part runs in a process of its own under its own time limit, so that a crash or a hang costs one part. Each row is written to
OUT/results.jsonl as soon as it is known. Every part ends with a row of its `status`: done, skipped, failed or stopped, with a reason.
OUT/log.txt holds what the parts wrote on stderr, OUT/clocks.csv the clocks during the run.

On a machine without a GPU every part starts and says why it is skipped; that is the dry run. `--library` names a stand-in for the CUDA
driver there (tests: `standin_libcuda`); the numbers of the kernel are then checked on the CPU, at sizes that `--small` keeps small.

Needs torch, numpy and rich; nvcc, ncu and compute-sanitizer for the parts that are named after them; timm and pictures for `table`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.device import LIBRARY  # noqa: E402
from benchmarks.gpu.part import Part, Request, Row, Skip  # noqa: E402

RESULTS, LOG, CLOCKS = "results.jsonl", "log.txt", "clocks.csv"
SECONDS = 480.0
LONGEST_LOG = 60_000  # characters of a part's stderr

# In this order: what matters most comes first, and the last part takes the time that is left.
PARTS = (
    Part("facts", 30),
    Part("numbers", 60),
    Part("lane", 45),
    Part("bindings", 30),
    Part("timing", 130),
    Part("splits", 45),
    Part("counters", 75),
    Part("throughput", 75),
    Part("sanitizer", 150, beside_next=True),
    Part("commands", 200, beside_next=True),
    Part("table", 480),
)


@dataclass(frozen=True)
class Results:
    """The results file; `add` may be called from several threads."""

    file: TextIO
    start: float
    lock: threading.Lock

    def add(self, part: str, row: Row) -> None:
        """Write one row at once."""
        line = json.dumps({"part": part, "at_s": round(time.monotonic() - self.start, 1), **row})
        with self.lock:
            self.file.write(line + "\n")
            self.file.flush()


def main() -> None:
    arguments = _arguments()
    if arguments.run:
        run_part(arguments.run, arguments)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context((arguments.out / RESULTS).open("a", encoding="utf-8"))
        stack.enter_context(recorded_clocks(arguments.out / CLOCKS))
        results = Results(file, time.monotonic(), threading.Lock())
        run_parts(_chosen(arguments.only), results, seconds=arguments.seconds, options=arguments)
    for row in read(arguments.out / RESULTS):
        if "status" in row:
            print(f"{row['part']:12} {row['status']:8} {row['rows']:4} rows {row['seconds']:6.1f} s  {row.get('reason', '')}")


def run_parts(parts: Sequence[Part], results: Results, *, seconds: float, options: Any) -> None:
    """Run the parts in order, each under the smaller of its limit and the time that is left."""
    threads: list[threading.Thread] = []
    for part in parts:
        left = seconds - (time.monotonic() - results.start)
        if left < 1:
            results.add(part.name, {"status": "skipped", "rows": 0, "seconds": 0.0, "reason": "no time was left"})
            continue
        limit = min(part.seconds, left)
        thread = threading.Thread(target=_watch, args=(part.name, results, limit, options))
        thread.start()
        threads.append(thread)
        if not part.beside_next:
            for one in threads:
                one.join()


def _watch(name: str, results: Results, limit: float, options: Any) -> None:
    """Run one part in a process, pass its rows on, and end it at its limit."""
    start, rows = time.monotonic(), 0
    log = options.out / f"{name}.stderr"
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--run", name, "--seconds", str(limit)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        timer = threading.Timer(limit + 5, _end, args=(process,))  # the part itself stops at its limit
        timer.start()
        last: Row = {}
        for line in process.stdout or ():
            row = _parsed(line)
            if row is None:
                continue
            if "status" in row:
                last = row
            else:
                results.add(name, row)
                rows += 1
        code = process.wait()
    stopped = not timer.is_alive()
    timer.cancel()
    status = last or {"status": "stopped", "reason": f"{limit:.0f} s"} if stopped or last else _crash(code, log)
    results.add(name, {**status, "rows": rows, "seconds": round(time.monotonic() - start, 1)})
    _keep_log(log, options.out / LOG)


def _crash(code: int, log: Path) -> Row:
    words = log.read_text(errors="replace").strip().splitlines()
    return {"status": "failed", "reason": f"exit code {code}: {words[-1] if words else 'no message'}"}


def _end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def _parsed(line: str) -> dict[str, Any] | None:
    """Return a row, or None for a line that some library printed."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _keep_log(log: Path, target: Path) -> None:
    with target.open("a") as file:
        file.write(f"=== {log.stem}\n{log.read_text(errors='replace')[-LONGEST_LOG:]}\n")
    log.unlink()


def run_part(name: str, arguments: Any) -> None:
    """Print the rows of a part and its status, in the process that `_watch` started."""
    deadline = time.monotonic() + arguments.seconds
    request = Request(
        arguments.out,
        deadline,
        small=arguments.small,
        library=arguments.library,
        data=arguments.data,
        bindings=arguments.bindings,
    )
    status: Row = {"status": "done"}
    try:
        module = importlib.import_module(f"benchmarks.gpu.parts.{name}")
        for row in module.rows(request):
            print(json.dumps(row), flush=True)
            if request.seconds_left < 0:
                status = {"status": "stopped", "reason": f"{arguments.seconds:.0f} s"}
                break
    except Skip as reason:
        status = {"status": "skipped", "reason": str(reason)}
    except Exception as error:
        traceback.print_exc()
        status = {"status": "failed", "reason": f"{type(error).__name__}: {str(error)[:500]}"}
    print(json.dumps(status), flush=True)


@contextmanager
def recorded_clocks(path: Path) -> Iterator[None]:
    """Let nvidia-smi write clocks, power and temperature twice a second; nothing happens without it."""
    if shutil.which("nvidia-smi") is None:
        yield
        return
    query = "timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu,memory.used"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,nounits", "-lms", "500"]
    with path.open("a") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a results file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _chosen(only: str) -> list[Part]:
    names = [n for n in only.split(",") if n]
    unknown: Iterable[str] = set(names) - {part.name for part in PARTS}
    if unknown:
        raise SystemExit(f"no part {', '.join(sorted(unknown))}; parts: {', '.join(p.name for p in PARTS)}")
    return [part for part in PARTS if not names or part.name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results; rows are appended")
    parser.add_argument("--only", default="", help="parts, separated by commas")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of the whole run")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--library", default=LIBRARY, help="the CUDA driver, or a stand-in for it")
    parser.add_argument("--data", type=Path, help="images for `table`: train/CLASS and test/CLASS")
    parser.add_argument("--bindings", type=Path, help="TensorRT's Python bindings with a registry-only libnvinfer")
    parser.add_argument("--run", default="", help=argparse.SUPPRESS)  # one part, in this process
    return parser.parse_args()


if __name__ == "__main__":
    main()
