"""Which setting of a family counts: val chooses, and the choice is kept once test was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finedge.errors import UsageError
from finedge.train.sweep.file import SweepFile
from finedge.train.sweep.plan import SEED, Group, Setting, SweepRun, settings
from finedge.train.sweep.rows import Rows


def chosen_settings(file: SweepFile, group: Group, rows: Rows) -> dict[str, Setting]:
    """Return {family: its setting} for the families whose search is finished.

    The setting with the best top-1 on val wins, of the first seed; among equals the lower loss on
    val, then the first in the file. Settings that failed cannot win. Once test was read, the choice
    of that day stays.
    """
    kept = rows.read_chosen(group)
    found = {
        name: _kept(candidates, kept[name]) if name in kept else best(candidates, rows)
        for name, candidates in settings(file, group).items()
    }
    return {name: setting for name, setting in found.items() if setting is not None}


def best(candidates: Sequence[Setting], rows: Rows) -> Setting | None:
    """Return the setting that val chooses; None while one has no row, or where all failed."""
    read = [(setting, rows.read(SweepRun(setting, SEED))) for setting in candidates]
    if any(row is None for _, row in read):
        return None
    scored = [(setting, row) for setting, row in read if row is not None and "error" not in row]
    if len(scored) > 1 and any(row["val"]["n"] == 0 for _, row in scored):
        raise UsageError(
            f"{scored[0][0].family}: {len(scored)} settings and no val images",
            expected="a val split to choose with, or one setting",
            fix="val = 0.1 below [set], or one value for each key of the search",
        )
    return max(scored, key=lambda pair: _score(pair[1]["val"]))[0] if scored else None


def edges(tried: Sequence[Mapping[str, Any]], point: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a point whose number is the smallest or the largest that was tried.

    A better value may lie beyond it. Words and a single value have no edge.

    Args:
        tried: the points of the rows that are there. The file's grid may be wider by now.
        point: what val chose.
    """
    values = {key: {one[key] for one in tried if _is_number(one.get(key))} for key in point}
    return tuple(
        key
        for key, numbers in values.items()
        if len(numbers) > 1 and point[key] in (min(numbers), max(numbers))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _score(val: Mapping[str, float | None]) -> tuple[float, float]:
    top1, loss = val["top1"], val["loss"]
    return (top1 if top1 is not None else 0.0, -loss if loss is not None else 0.0)


def _kept(candidates: Sequence[Setting], digest: str) -> Setting | None:
    return next((setting for setting in candidates if setting.digest == digest), None)
