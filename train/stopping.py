"""Which epoch was the best on val, and whether training waited long enough for a better one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finedge.data import DataSet
from finedge.errors import UsageError
from finedge.train.recipe import Recipe


def best_epoch(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of the epoch with the highest top-1 on val (first of equals; 0: none)."""
    measured = [row for row in rows if row["val"]["top1"] is not None]
    best = max(measured, key=lambda row: float(row["val"]["top1"]), default={"epoch": 0})
    return int(best["epoch"])


def is_out_of_patience(rows: Sequence[Mapping[str, Any]], *, patience: int) -> bool:
    """Tell whether the last `patience` epochs were no better than one before them; 0: never."""
    return 0 < patience <= len(rows) - best_epoch(rows)


def require_val(recipe: Recipe, data: DataSet) -> None:
    """Refuse a recipe that chooses by val where no image is in val.

    Raises:
        UsageError: `patience` or `keep` needs a val split.
    """
    if data.splits.get("val"):
        return
    for name, needs in (("patience", recipe.patience > 0), ("keep", recipe.keep == "best")):
        if needs:
            raise UsageError(
                f"recipe value {name} = {getattr(recipe, name)!r} without a val split",
                expected="images in val, which choose the epoch",
                fix="--set patience=0 --set keep=last, or data with a val split",
            )
