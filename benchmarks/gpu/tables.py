"""Print the results of `all.py` as Markdown tables: python benchmarks/gpu/tables.py FILE..."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.results import read  # noqa: E402

Row = dict[str, Any]
CONTENDERS = (
    "kernel",
    "sdpa flash",
    "sdpa efficient",
    "sdpa cudnn",
    "triton",
    "chain",
    "chain compiled",
)
WAVEFRONTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared"
COUNTERS = {
    "us": "gpu__time_duration.sum",
    "tensor pipe %": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "shared wavefronts %": f"{WAVEFRONTS}.avg.pct_of_peak_sustained_elapsed",
    "warps active %": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "waves": "launch__waves_per_multiprocessor",
    "stalled on loads": "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    rows = [row for file in parser.parse_args().files for row in read(file)]
    for title, table in TABLES.items():
        lines = list(table(rows))
        if len(lines) > 2:
            print(f"### {title}\n\n" + "\n".join(lines) + "\n")


def timing(rows: Sequence[Row]) -> Iterator[str]:
    """Medians in microseconds, of the last run of a shape."""
    yield from _head(["shape", "d", "maps", "batch", *CONTENDERS, "chain / kernel"])
    shapes = {_shape(r): r for r in rows if r.get("what") == "shape"}
    for row in shapes.values():
        us = row["us"]
        maps = "one" if row["shared"] else "two"
        cells = [f"{us[name]:.1f}" if name in us else "-" for name in CONTENDERS]
        ratio = f"{us['chain'] / us['kernel']:.2f}"
        yield _line([row["grid"], row["channels"], maps, row["batch"], *cells, ratio])


def splits(rows: Sequence[Row]) -> Iterator[str]:
    """The planned number of splits against the best one, where it costs more than 5 %."""
    yield from _head(
        ["shape", "d", "maps", "batch", "planned", "us", "best", "us", "planned / best"]
    )
    for row in (r for r in rows if r["part"] == "splits" and "us" in r):
        planned, best = row["us"].get(str(row["planned"])), row["us"][str(row["best"])]
        if planned is None or planned / best < 1.05:
            continue
        maps = "one" if row["shared"] else "two"
        cells = [row["planned"], planned, row["best"], best, f"{planned / best:.2f}"]
        yield _line([row["grid"], row["channels"], maps, row["batch"], *cells])


def counters(rows: Sequence[Row]) -> Iterator[str]:
    """Hardware counters of one launch."""
    yield from _head(["kernel", "grid", *COUNTERS, "bank conflicts a wavefront"])
    for row in (r for r in rows if "counters" in r):
        values = row["counters"]
        cells = [values.get(name, "-") for name in COUNTERS.values()]
        cells[0] = f"{float(cells[0]) / 1000:.1f}"
        conflicts, wavefronts = (values.get(f"{n}.sum", 0) for n in (CONFLICTS, WAVEFRONTS))
        share = f"{conflicts / wavefronts:.3f}" if wavefronts else "-"
        yield _line([row["kernel"], row["grid"], *cells, share])


def throughput(rows: Sequence[Row]) -> Iterator[str]:
    """Training steps."""
    yield from _head(["model", "backbone", "side", "images/s", "GiB", "float16 error"])
    for row in (r for r in rows if r["part"] == "throughput" and "images_per_s" in r):
        cells = [row["images_per_s"], row["memory_gib"], row.get("half_error", "-")]
        yield _line([row["model"], row["backbone"], row["side"], *cells])


def families(rows: Sequence[Row]) -> Iterator[str]:
    """Accuracy on the test split by family."""
    yield from _head(["model", "seeds", "test top-1, mean", "each seed", "parameters"])
    by_family: dict[str, list[Row]] = defaultdict(list)
    for row in (r for r in rows if r["part"] == "table" and "test" in r):
        by_family[row["family"]].append(row)
    for family, runs in by_family.items():
        top1 = [100 * run["test"]["top1"] for run in sorted(runs, key=lambda r: int(r["seed"]))]
        each = ", ".join(f"{value:.1f}" for value in top1)
        yield _line(
            [family, len(top1), f"{statistics.mean(top1):.1f}", each, runs[0]["parameters"]]
        )


TABLES: dict[str, Callable[[Sequence[Row]], Iterator[str]]] = {
    "Times in microseconds": timing,
    "Splits over the keys": splits,
    "Counters": counters,
    "Training steps": throughput,
    "Families": families,
}


def _shape(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("grid", "channels", "shared", "batch"))


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
