"""Everything of finedge that needs an NVIDIA GPU, in one call of at most 8 minutes.

    python benchmarks/gpu/all.py OUT [--only NAMES] [--seconds 480] [--carried .gpu]

Each part runs in a process of its own under its own time limit, so that a crash or a hang costs one
part. Each row is written to OUT/results.jsonl as soon as it is known. Every part ends with a row of
its `status`: done, skipped, failed or stopped, with a reason. OUT/log.txt holds what the parts
wrote on stderr, OUT/clocks.csv the clocks during the run. Rows that a full disk refuses are
printed.

On a machine without a GPU every part starts and says why it is skipped; that is the dry run.
`--library` names a stand-in for the CUDA driver there (tests: `standin_libcuda`); the numbers of
the kernel are then checked on the CPU, at sizes that `--small` keeps small.

Needs torch and numpy. Some parts need ncu, compute-sanitizer, cuda-bindings, timm, or what
`prepare.py` puts into `.gpu`: a part that lacks one says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.carried import FOLDER  # noqa: E402
from benchmarks.gpu.device import LIBRARY  # noqa: E402
from benchmarks.gpu.part import Part, run_part  # noqa: E402
from benchmarks.gpu.results import Results  # noqa: E402
from benchmarks.gpu.watch import watch  # noqa: E402

RESULTS, CLOCKS = "results.jsonl", "clocks.csv"
SECONDS = 480.0
QUERY = "timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu,memory.used"

# In this order: what matters most comes first. The last three run side by side, since nothing in
# them is timed, and the trainings take the time that is left. In parentheses: seconds on an H200.
PARTS = (
    Part("facts", 30),  # (6)
    Part("numbers", 60),  # (7)
    Part("lane", 45),  # (7)
    Part("bindings", 60),  # (6 a version)
    Part("plugin", 30),
    Part("timing", 100),  # (49)
    Part("splits", 40),  # (13)
    Part("counters", 60),  # (23)
    Part("throughput", 130),
    Part("sanitizer", 150, beside_next=True),  # (18)
    Part("commands", 480, beside_next=True),
    Part("table", 480),
)


def main() -> None:
    arguments = _arguments()
    if arguments.run:
        run_part(arguments.run, arguments)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.out / RESULTS)
    with recorded_clocks(arguments.out / CLOCKS):
        run_parts(_chosen(arguments.only), results, arguments)
    results.close()
    for row in results.statuses:
        counted = f"{row['rows']:4} rows {row['seconds']:6.1f} s"
        print(f"{row['part']:12} {row['status']:8} {counted}  {row.get('reason', '')}")


def run_parts(parts: Sequence[Part], results: Results, arguments: argparse.Namespace) -> None:
    """Run the parts in order, each under the smaller of its limit and the time that is left."""
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
    threads: list[threading.Thread] = []
    for part in parts:
        left = arguments.seconds - (time.monotonic() - results.start)
        limit = min(part.seconds, left)
        if limit < 1:
            row = {"status": "skipped", "rows": 0, "seconds": 0.0, "reason": "no time was left"}
            results.add(part.name, row)
            continue
        words = (*command, "--run", part.name, "--seconds", str(limit))
        options = {"command": words, "limit": limit, "folder": arguments.out}
        threads.append(threading.Thread(target=watch, args=(part.name, results), kwargs=options))
        threads[-1].start()
        if not part.beside_next:
            for thread in threads:
                thread.join()


@contextmanager
def recorded_clocks(path: Path) -> Iterator[None]:
    """Let nvidia-smi write clocks, power and temperature twice a second, where it is installed."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,nounits", "-lms", "500"]
    process = None
    # No nvidia-smi, or no room for the file: the run goes on without.
    with suppress(OSError), path.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        if process:
            process.kill()


def _chosen(only: str) -> list[Part]:
    names = [name for name in only.split(",") if name]
    unknown = sorted(set(names) - {part.name for part in PARTS})
    if unknown:
        names_of_parts = ", ".join(part.name for part in PARTS)
        raise SystemExit(f"no part {', '.join(unknown)}; parts: {names_of_parts}")
    return [part for part in PARTS if not names or part.name in names]


def _arguments() -> argparse.Namespace:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("out", type=Path, help="folder of the results; rows are appended")
    parser.add_argument("--only", default="", help="parts, separated by commas")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of the whole run")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--library", default=LIBRARY, help="the CUDA driver, or a stand-in")
    parser.add_argument("--carried", type=Path, default=FOLDER, help="made by prepare.py")
    parser.add_argument("--run", default="", help=argparse.SUPPRESS)  # one part, in this process
    return parser.parse_args()


if __name__ == "__main__":
    main()
