"""Print the results of `all.py` as Markdown tables: python benchmarks/gpu/tables.py FILE...

Each table is of the latest of the files that measured it.
"""

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
from benchmarks.gpu.shapes import GRIDS  # noqa: E402

Row = dict[str, Any]
Table = Callable[[Sequence[Row]], Iterator[str]]
CANDIDATES = {
    "kernel": "kernel",
    "flash": "sdpa flash",
    "efficient": "sdpa efficient",
    "cuDNN": "sdpa cudnn",
    "Triton": "triton",
    "chain": "chain",
    "compiled chain": "chain compiled",
}
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
# The shapes of the page: grid, channels, whether keys are values, batch.
CHOSEN = (
    ("224 L4<-L3", 64, False, 1),
    ("224 L4<-L3", 256, False, 1),
    ("448 L4<-L2", 256, False, 1),
    ("448 L4<-L2", 512, True, 1),
    ("448 L4<-L3", 512, True, 32),
    ("448 L4<-L2", 256, False, 32),
    ("448 L4<-L2", 512, False, 32),
    ("448 L4<-L2", 512, True, 32),
    ("448 L4<-L2", 1024, True, 32),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    files = parser.parse_args().files
    rows = [{**row, "run": file.stem} for file in files for row in read(file)]
    for title, table in TABLES.items():
        lines = list(table(rows))
        if len(lines) > 2:
            print(f"### {title}\n\n" + "\n".join(lines) + "\n")


def latest(rows: Sequence[Row], *, part: str, key: str) -> list[Row]:
    """Return the rows of a part that have `key`, of the last run that has any."""
    having = [row for row in rows if row["part"] == part and key in row]
    return [row for row in having if row["run"] == having[-1]["run"]]


def latest_shapes(rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
    """Return the timed shapes of the last run that timed any."""
    return {_shape(row): row for row in latest(rows, part="timing", key="grid")}


def timing(rows: Sequence[Row]) -> Iterator[str]:
    """Medians in microseconds of every shape."""
    yield from _head(["shape", "d", "maps", "batch", *CANDIDATES, "chain / kernel"])
    for row in latest_shapes(rows).values():
        us, place = row["us"], [row["grid"], row["channels"], _maps(row), row["batch"]]
        yield _line([*place, *_times(us, CANDIDATES), f"{us['chain'] / us['kernel']:.2f}"])


def chosen_times(rows: Sequence[Row]) -> Iterator[str]:
    """Medians in microseconds of the shapes of the page."""
    candidates = [name for name in CANDIDATES if name != "compiled chain"]
    yield from _head(["queries x keys, d, maps", "batch", *candidates])
    shapes = latest_shapes(rows)
    for row in (shapes[shape] for shape in CHOSEN if shape in shapes):
        queries, keys = GRIDS[row["grid"]]
        name = f"{queries} x {keys}, {row['channels']}, {_maps(row)}"
        yield _line([name, row["batch"], *_times(row["us"], candidates)])


def splits(rows: Sequence[Row]) -> Iterator[str]:
    """The planned number of splits against the best one, where it costs more than 5 %."""
    yield from _head(
        ["shape", "d", "maps", "batch", "planned", "us", "best", "us", "planned / best"]
    )
    for row in latest(rows, part="splits", key="us"):
        planned, best = row["us"].get(str(row["planned"])), row["us"][str(row["best"])]
        if planned is None or planned / best < 1.05:
            continue
        cells = [row["planned"], planned, row["best"], best, f"{planned / best:.2f}"]
        yield _line([row["grid"], row["channels"], _maps(row), row["batch"], *cells])


def counters(rows: Sequence[Row]) -> Iterator[str]:
    """Hardware counters of one launch, and the counts a tile beside those of the shim."""
    tile = ["wavefronts a tile, counted", "products a tile, counted"]
    yield from _head(["kernel", "grid", *COUNTERS, "bank conflicts a wavefront", *tile])
    for row in latest(rows, part="counters", key="counters"):
        values = row["counters"]
        cells = [values.get(name, "-") for name in COUNTERS.values()]
        cells[0] = f"{float(cells[0]) / 1000:.1f}"
        pairs = [_pair(row, name) for name in ("wavefronts", "products")]
        yield _line([row["kernel"], row["grid"], *cells, f"{_conflicts(values):.3f}", *pairs])


def chosen_counters(rows: Sequence[Row]) -> Iterator[str]:
    """Hardware counters of the first launch of each attention kernel."""
    names = ["tensor pipe", "shared-memory wavefronts", "bank conflicts a wavefront"]
    yield from _head(["kernel", *names, "warps active", "waves"])
    seen = set()
    for row in latest(rows, part="counters", key="counters"):
        values, kernel = row["counters"], row["kernel"]
        if kernel in seen or "combine" in kernel:
            continue
        seen.add(kernel)
        tensor, wavefronts, active, waves = (
            values[COUNTERS[name]]
            for name in ("tensor pipe %", "shared wavefronts %", "warps active %", "waves")
        )
        shares = [f"{tensor:.1f} %", f"{wavefronts:.0f} %", f"{_conflicts(values):.2f}"]
        yield _line([f"`{kernel}`", *shares, f"{active:.0f} %", f"{waves:.2f}"])


def throughput(rows: Sequence[Row]) -> Iterator[str]:
    """Training steps, and what float16 costs where it was compared."""
    yield from _head(["model", "backbone", "side", "images/s", "GiB", "float16 error"])
    timed = latest(rows, part="throughput", key="images_per_s")
    half = {
        _training(row): row["half_error"]
        for row in latest(rows, part="throughput", key="half_error")
    }
    for row in timed:
        cells = [row["images_per_s"], row["memory_gib"], half.get(_training(row), "-")]
        yield _line([*_training(row), *cells])


def families(rows: Sequence[Row]) -> Iterator[str]:
    """Top-1 on the test split by family, the best mean first."""
    yield from _head(["model", "seeds", "each", "mean"])
    by_family: dict[str, list[float]] = defaultdict(list)
    ended = latest(rows, part="table", key="test")
    for row in sorted(ended, key=lambda row: int(row["seed"])):
        by_family[row["family"]].append(100 * row["test"]["top1"])
    for family, top1 in sorted(by_family.items(), key=lambda item: -statistics.mean(item[1])):
        name, _, rest = family.partition(" ")
        mean = f"{statistics.mean(top1):.1f}" if len(top1) > 1 else "-"
        each = ", ".join(f"{value:.1f}" for value in top1)
        yield _line([f"`{name}` {rest}".strip(), len(top1), each, mean])


TABLES: dict[str, Table] = {
    "Times in microseconds": timing,
    "Splits over the keys": splits,
    "Counters": counters,
    "Training steps": throughput,
    "Families": families,
}


def _shape(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("grid", "channels", "shared", "batch"))


def _training(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("model", "backbone", "side"))


def _maps(row: Row) -> str:
    return "one" if row["shared"] else "two"


def _times(us: dict[str, float], names: Iterable[str]) -> list[str]:
    return [f"{us[CANDIDATES[name]]:.1f}" if CANDIDATES[name] in us else "-" for name in names]


def _conflicts(values: dict[str, float]) -> float:
    wavefronts = values.get(f"{WAVEFRONTS}.sum", 0)
    return values.get(f"{CONFLICTS}.sum", 0) / wavefronts if wavefronts else 0.0


def _pair(row: Row, name: str) -> str:
    measured, counted = (
        row.get(key, {}).get(name, "-") for key in ("measured_a_tile", "counted_a_tile")
    )
    return f"{measured}, {counted}"


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
