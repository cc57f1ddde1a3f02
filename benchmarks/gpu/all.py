"""Everything of finedge that needs an NVIDIA GPU, in one call of at most 8 minutes.

    python benchmarks/gpu/all.py OUT [--only NAMES] [--seconds 480] [--data DIR] [--bindings DIR]

Each part runs in a process of its own under its own time limit, so that a crash or a hang costs one
part. Each row is written to OUT/results.jsonl as soon as it is known. Every part ends with a row of
its `status`: done, skipped, failed or stopped, with a reason. OUT/log.txt holds what the parts
wrote on stderr, OUT/clocks.csv the clocks during the run.

On a machine without a GPU every part starts and says why it is skipped; that is the dry run.
`--library` names a stand-in for the CUDA driver there (tests: `standin_libcuda`); the numbers of
the kernel are then checked on the CPU, at sizes that `--small` keeps small.

Needs torch and numpy; for some parts nvcc, ncu, compute-sanitizer, cuda-bindings, timm, tyro and
pictures: a part that lacks one says so.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.device import LIBRARY  # noqa: E402
from benchmarks.gpu.part import Part, run_part  # noqa: E402
from benchmarks.gpu.results import Results, read  # noqa: E402
from benchmarks.gpu.watch import watch  # noqa: E402

RESULTS, CLOCKS = "results.jsonl", "clocks.csv"
SECONDS = 480.0
QUERY = "timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu,memory.used"

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
    Part("commands", 150),
    Part("sanitizer", 150, beside_next=True),
    Part("table", 480),
)


def main() -> None:
    arguments = _arguments()
    if arguments.run:
        run_part(arguments.run, arguments)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context((arguments.out / RESULTS).open("a", encoding="utf-8"))
        stack.enter_context(recorded_clocks(arguments.out / CLOCKS))
        run_parts(_chosen(arguments.only), Results(file), arguments)
    for row in (r for r in read(arguments.out / RESULTS) if "status" in r):
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
    if shutil.which("nvidia-smi") is None:
        yield
        return
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,nounits", "-lms", "500"]
    errors = subprocess.DEVNULL
    with path.open("a") as file, subprocess.Popen(command, stdout=file, stderr=errors) as process:
        try:
            yield
        finally:
            process.terminate()


def _chosen(only: str) -> list[Part]:
    names = [name for name in only.split(",") if name]
    unknown = sorted(set(names) - {part.name for part in PARTS})
    if unknown:
        known = ", ".join(part.name for part in PARTS)
        raise SystemExit(f"no part {', '.join(unknown)}; parts: {known}")
    return [part for part in PARTS if not names or part.name in names]


def _arguments() -> argparse.Namespace:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("out", type=Path, help="folder of the results; rows are appended")
    parser.add_argument("--only", default="", help="parts, separated by commas")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of the whole run")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--library", default=LIBRARY, help="the CUDA driver, or a stand-in")
    parser.add_argument("--data", type=Path, help="images: train/CLASS and test/CLASS")
    parser.add_argument("--bindings", type=Path, help="TensorRT's bindings; see parts/bindings.py")
    parser.add_argument("--run", default="", help=argparse.SUPPRESS)  # one part, in this process
    return parser.parse_args()


if __name__ == "__main__":
    main()
