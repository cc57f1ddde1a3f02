"""Nsight Compute's hardware counters of one launch of each kernel.

The raw table lies in OUT/counters.csv. Clocks are left as they are. Beside what was measured, a row
has what the shim on the CPU counts for a whole tile (`.gpu/counts.jsonl`): shared-memory
wavefronts, mma operations, and the bound of the speed that follows from both. The measured ones
also hold the start and the end of each block, and count a partial tile at the edge as a whole one.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.gpu.case import Case
from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.torch_free import PROFILED
from finedge.runtime.trt.plugin.launch import COMBINE, kernel_for

PROGRAM = Path(__file__).resolve().parents[1] / "torch_free.py"
SECTIONS = (
    "SpeedOfLight",
    "ComputeWorkloadAnalysis",
    "MemoryWorkloadAnalysis",
    "MemoryWorkloadAnalysis_Tables",
    "Occupancy",
    "LaunchStats",
    "SchedulerStats",
    "WarpStateStats",
)
EXTRA = "regex:^(l1tex__data_(bank|pipe)_.*shared.*|sm__(inst_executed_)?pipe_.*(tensor|hmma).*)$"
# Whose bounds a row has, in percent of the tensor cores' peak. An H200 has the same chip.
CHIP = "H100"
# Counts of a tile: their name in the shim's table, and the metric that measures them.
A_TILE = {
    "wavefronts": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "products": "sm__inst_executed_pipe_tensor.sum",
}
# What a row keeps of the raw table.
KEPT = re.compile(
    r"^(gpu__time_duration\.sum"
    r"|sm__pipe_tensor_cycles_active\.avg\.pct_of_peak_sustained_(active|elapsed)"
    r"|sm__inst_executed_pipe_tensor\.sum"
    r"|l1tex__data_(pipe_lsu_wavefronts|bank_conflicts_pipe_lsu)_mem_shared(_op_(ld|st))?\.sum"
    r"|l1tex__data_pipe_lsu_wavefronts_mem_shared\.avg\.pct_of_peak_sustained_elapsed"
    r"|dram__bytes_(read|write)\.sum|lts__t_sectors\.sum"
    r"|(sm|lts|l1tex)__throughput\.avg\.pct_of_peak_sustained_elapsed"
    r"|gpu__dram_throughput\.avg\.pct_of_peak_sustained_elapsed"
    r"|sm__warps_active\.avg\.pct_of_peak_sustained_active"
    r"|sm__cycles_active\.(avg|max)"
    r"|smsp__issue_active\.avg\.pct_of_peak_sustained_active"
    r"|launch__(registers_per_thread|grid_size|waves_per_multiprocessor|occupancy_limit_(registers|shared_mem))"
    r"|smsp__average_warps_issue_stalled_(barrier|long_scoreboard|short_scoreboard|wait|math_pipe_throttle|mio_throttle)_per_issue_active\.ratio)$"
)


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    if shutil.which("ncu") is None:
        raise Skip("no ncu on the PATH")
    text = profiled(("--metrics", EXTRA), seconds=request.seconds_left) or profiled(
        (), seconds=request.seconds_left
    )
    with suppress(OSError):  # the rows hold what matters
        (request.out / "counters.csv").write_text(text)
    yield from compared(read(text), request.carried.counts)


def profiled(extra: tuple[str, ...], *, seconds: float) -> str:
    """Return ncu's raw table as CSV, or nothing where it refused the metrics."""
    sections = [word for name in SECTIONS for word in ("--section", name)]
    command = [
        "ncu",
        "--clock-control",
        "none",
        "--csv",
        "--page",
        "raw",
        *sections,
        *extra,
        sys.executable,
        str(PROGRAM),
        "launch",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=max(1.0, seconds), check=False
    )
    if done.returncode or '"Kernel Name"' not in done.stdout:
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
        return ""
    return done.stdout


def read(text: str) -> Iterator[Row]:
    """Yield one row a launch of ncu's raw table; its first two lines are names and units."""
    start = text.find('"ID"')
    if start < 0:
        return
    names, units, *launches = csv.reader(io.StringIO(text[start:]))
    for values in launches:
        table = dict(zip(names, values, strict=False))
        kept = {name: _number(value) for name, value in table.items() if KEPT.match(name)}
        scales = {
            name: unit for name, unit in zip(names, units, strict=False) if name in kept and unit
        }
        yield {
            "kernel": table.get("Kernel Name"),
            "grid": table.get("Grid Size"),
            "counters": kept,
            "units": scales,
        }


def compared(launches: Iterator[Row], counts: Mapping[str, Row]) -> Iterator[Row]:
    """Add to each launch of an attention kernel its counts a tile, measured and by the shim."""
    cases = iter(PROFILED)
    for row in launches:
        if row["kernel"] == COMBINE:
            yield row
            continue
        case = next(cases, None)
        if case is None or case.kernel != row["kernel"]:
            yield {**row, "reason": f"expected {case.kernel if case else 'no launch'} here"}
            continue
        counted = counts.get(case.kernel, {})
        yield {
            **row,
            "tiles": tiles(case),
            "measured_a_tile": {
                name: round(float(row["counters"][metric]) / tiles(case), 1)
                for name, metric in A_TILE.items()
                if isinstance(row["counters"].get(metric), float)
            },
            "counted_a_tile": {name: counted[name] for name in A_TILE if name in counted},
            "bounds": {name: value for name, value in counted.items() if name.startswith(CHIP)},
        }


def tiles(case: Case) -> int:
    """Return the number of (queries, keys) tiles of a case, those at the edges among them."""
    kernel = kernel_for(d=case.d, dv=case.dv, shared=case.shared)
    rows = -(-case.queries // kernel.queries)
    return case.batch * rows * -(-case.keys // kernel.keys)


def _number(value: str) -> float | str:
    try:
        return float(value.replace(",", ""))
    except ValueError:
        return value
