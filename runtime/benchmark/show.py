"""What `finedge benchmark` shows on a terminal: the variants, one table a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from finedge.runtime.early_exit.record import titled
from finedge.runtime.report.tables import looks_text
from finedge.tables import UNKNOWN, one_line, stack, styled, table

Row = Mapping[str, Any]
NOT_COMPARED: Row = {"top1_change": None}


def show(result: dict[str, Any]) -> RenderableType:
    """Return the rows by mode, the comparisons of bundles, and where the report is."""
    modes = dict.fromkeys((row["mode"], row["batch"]) for row in result["rows"])
    tables = [
        _mode(mode, [row for row in result["rows"] if (row["mode"], row["batch"]) == mode])
        for mode in modes
    ]
    invalid = [
        styled(f"INVALID: {_name(row)}: {'; '.join(row['invalid_reasons'])}", "red")
        for row in result["rows"]
        if not row["valid"]
    ]
    early = [row for row in result["rows"] if row.get("early_exit")]
    exits = [_exits(early)] if early else []
    compared = [_comparisons(result)] if result["comparisons"] else []
    choices = [
        styled(f"{name}: auto runs {choice['variant']} on this machine: {choice['reason']}")
        for name, choice in result.get("choices", {}).items()
    ]
    folder = Path(result["report"]).parent
    report = [
        one_line(f"report: {result['report']}"),
        one_line(f"next: finedge report {folder}", "dim"),
    ]
    return stack(*tables, *exits, *compared, *choices, Group(*invalid, *report))


def _mode(mode: tuple[str, int], rows: list[Row]) -> RenderableType:
    name, batch = mode
    columns = CAMERA if name == "camera" else OTHERS
    if any((row.get("camera") or {}).get("find") for row in rows):
        columns = FIRST | FINDER | columns
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return table(tuple(columns), cells, title=f"{name}, batch {batch}{looks_text(rows)}")


def _exits(rows: list[Row]) -> RenderableType:
    """Return what early exits save and cost; the median time hides what they save."""
    cells = [
        (
            row["bundle"],
            row["variant"],
            row["mode"],
            _share(row["early_exit"].get("share")),
            _timed(row["early_exit"]["timed_frames"]),
            _ms(row["mean_ms"]),
            _points(row["early_exit"].get("against_whole", NOT_COMPARED)),
        )
        for row in rows
    ]
    columns = (
        "early exits of",
        "variant",
        "mode",
        ">of the images",
        ">of the timed frames",
        ">mean ms",
        ">against none, points (95 %)",
    )
    return table(columns, cells)


def _share(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def _timed(shares: Mapping[str, float]) -> str:
    *exits, _ = shares.values()
    return _share(sum(exits)) if any(shares.values()) else UNKNOWN


def _comparisons(result: Mapping[str, Any]) -> RenderableType:
    rows = [
        (
            f"{_title(entry, 'second')} against {entry['first']}",
            entry["variant"],
            _points(entry),
            f"{entry['mcnemar_p']:.2g}",
        )
        for entry in result["comparisons"]
    ]
    columns = ("bundles", "variant", ">top-1, points (95 %)", ">McNemar p")
    return table(columns, rows, title="the same images, other bundles")


def _name(row: Row) -> str:
    return f"{_title(row)} {row['variant']} {row['mode']}"


def _title(record: Row, name: str = "bundle") -> str:
    return titled(record[name], record.get("early_exit"))


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f}"


def _idle(camera: Row) -> float | None:
    return camera["idle"] / camera["answered"] if camera["find"] else None


def _top1(row: Row) -> str:
    if row["top1"] is None:
        return UNKNOWN
    low, high = row["wilson95"]
    return f"{100 * row['top1']:.1f} ({100 * low:.1f}..{100 * high:.1f})"


def _points(row: Row) -> str:
    if row["top1_change"] is None:
        return UNKNOWN
    low, high = row["top1_change95"]
    return f"{100 * row['top1_change']:+.1f} ({100 * low:+.1f}..{100 * high:+.1f})"


def _variant(row: Row) -> object:
    return row["variant"] if row["valid"] else styled(f"{row['variant']} INVALID", "bold red")


Columns = dict[str, Callable[[Row], object]]
FIRST: Columns = {"bundle": _title, "variant": _variant}
LAST: Columns = {">top-1 % (95 %)": _top1}
OTHERS: Columns = {
    **FIRST,
    ">p50 ms": lambda r: _ms(r["p50_ms"]),
    ">p95 ms": lambda r: _ms(r["p95_ms"]),
    ">mean ms": lambda r: _ms(r.get("mean_ms")),
    ">images/s": lambda r: f"{r['images_per_second']:.1f}",
    **LAST,
    ">against fp32": _points,
}
CAMERA: Columns = {
    **FIRST,
    ">age p50 ms": lambda r: _ms(r["camera"]["age_p50_ms"]),
    ">age p95 ms": lambda r: _ms(r["camera"]["age_p95_ms"]),
    ">frames/s": lambda r: f"{r['camera']['fps_answered']:.1f}",
    ">dropped": lambda r: f"{r['camera']['dropped']} of {r['camera']['offered']}",
    ">core %": lambda r: _percent(r["camera"].get("core_share")),
    **LAST,
}
FINDER: Columns = {
    "finder": lambda r: r["camera"]["find"] or "none",
    ">find p50 ms": lambda r: _ms(r["camera"]["find_p50_ms"]),
    ">idle %": lambda r: _percent(_idle(r["camera"])),
}
