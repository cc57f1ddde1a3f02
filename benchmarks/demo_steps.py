"""CPU seconds and wall of every `finedge` command of examples/demo.sh, as JSON rows.

    python benchmarks/demo_steps.py OUT.jsonl [--data DIR] [--work DIR] [--label TEXT]

The demo runs with a `finedge` on its PATH that measures each call (user + system time of the
process and its children) and appends a row. On a machine that others use too, CPU seconds / cores
is the estimate of the time on an idle one: `idle_s`. A command that cannot use all cores takes
longer than that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CORES = 2


def measured(command: list[str]) -> dict[str, Any]:
    """Run a command; return its exit code, wall and CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    code = subprocess.run(command, check=False).returncode
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return {
        "code": code,
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "idle_s": round(cpu / CORES, 1),
    }


def append_row(out: Path, row: dict[str, Any]) -> None:
    """Append a row with the machine, the commit and the time."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    place = {"cpu": _cpu(), "python": platform.python_version(), "commit": commit}
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with out.open("a") as file:
        file.write(json.dumps({**row, **place, "load": os.getloadavg()[0], "at": at}) + "\n")


def run_demo(out: Path, *, data: str, work: Path, label: str) -> int:
    """Run the demo in `work`, and append a row for each command and one for the whole."""
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder, "finedge")
        call = f'exec {sys.executable} {__file__} {out.absolute()} --label "{label}" --call "$@"\n'
        shim.write_text("#!/bin/sh\n" + call)
        shim.chmod(0o755)
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        os.chdir(work)
        row = measured(["bash", str(ROOT / "examples/demo.sh"), data, "demo"])
    append_row(out, {"label": label, "command": "demo", **row})
    return int(row["code"])


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def main() -> int:
    """Run the demo, or one command of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="demo/data")
    parser.add_argument("--work", type=Path, default=ROOT)
    parser.add_argument("--label", default="demo")
    parser.add_argument("--call", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.call is None:
        return run_demo(options.out, data=options.data, work=options.work, label=options.label)
    row = measured([sys.executable, "-m", "finedge", *options.call])
    append_row(options.out, {"label": options.label, "command": " ".join(options.call), **row})
    return int(row["code"])


if __name__ == "__main__":
    sys.exit(main())
