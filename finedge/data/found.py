"""What a layout's reader returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finedge.data.record import Item, LeftOut


@dataclass(frozen=True)
class Found:
    """Labels, images by split, and what a `DataSet` says of them; `root` is where they lie."""

    root: Path
    labels: tuple[str, ...]
    splits: dict[str, tuple[Item, ...]]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    given: bool = True
