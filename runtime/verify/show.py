"""What `finedge verify` shows on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from finedge.tables import UNKNOWN, percent, stack, styled, table

Stage = Mapping[str, Any]
STATES = {
    True: styled("pass", "green"),
    False: styled("fail", "red"),
    None: styled("skipped", "dim"),
}


def show(result: dict[str, Any]) -> RenderableType:
    """Return the stages in the order of the data, and the first that diverges."""
    stages = result["stages"]
    failed = [stage for stage in stages if stage["pass"] is False]
    first = failed[0] if failed else None
    rows = [(_state(stage, first), stage["name"], *_numbers(stage)) for stage in stages]
    columns = ("", "stage", ">difference", ">limit", "note")
    width = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    stages_table = table(columns[:width], [row[:width] for row in rows])
    return stack(stages_table, _verdict(stages, failed))


def _verdict(stages: list[Stage], failed: list[Stage]) -> RenderableType:
    passed = sum(stage["pass"] is True for stage in stages)
    skipped = len(stages) - passed - len(failed)
    counts = f"{passed} stages pass, {len(failed)} fail, {skipped} skipped"
    if not failed:
        return styled(counts, "bold green")
    return styled(f"{counts}; the first that diverges is {failed[0]['name']}", "bold red")


def _state(stage: Stage, first: Stage | None) -> object:
    return styled("FIRST", "bold red") if stage is first else STATES[stage["pass"]]


def _numbers(stage: Stage) -> tuple[str, str, str]:
    """Return the difference, its limit, and a note; top-1 stages have shares of images."""
    note = str(stage.get("note", stage.get("skipped", "")))
    if "agreement" in stage:
        limit = percent(stage["limit"], digits=0)
        return percent(stage["agreement"]), f">= {limit}", f"of {stage['n']} images agree"
    return _number(stage.get("max_abs")), _number(stage.get("limit")), note


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"
