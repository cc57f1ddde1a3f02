"""Selects the images that a number is measured on, and records their origin."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.data.digest import digests
from finedge.data.open import drop_unreadable
from finedge.data.record import DataSet, Item, join_names
from finedge.data.stored_split import StoredSplit
from finedge.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationSplit:
    """Images of a split, the record of their origin (plain data), and the folder they are in."""

    items: tuple[Item, ...]
    record: dict[str, Any]
    root: Path


def select_images(
    data: DataSet,
    stored: StoredSplit | None,
    *,
    split: str,
    allow_overlap: bool = False,
) -> EvaluationSplit:
    """Return the readable images of a split, after a check that training did not see them.

    `stored` is the split of the training, None where none was stored. Then the pictures in the
    folder's own train split are taken as trained on. Where that split had to be cut again, nothing
    is known about the training.

    Raises:
        DataError: no images. Or, unless `allow_overlap`: images that were trained on, or a split
            that was cut again for a model whose split is unknown.
    """
    if stored is None and split in (data.cut or {}) and not allow_overlap:
        raise DataError(
            f"split '{split}' of {data.root} would be cut again: the split of the training is not "
            "stored",
            expected=f"a folder with a {split} split of its own, or a model that stores its split",
            fix="train and export again, which stores it; or use --allow-overlap to measure it",
        )
    readable = drop_unreadable(data, splits=(split,))
    # Sorted, so that two models of one folder see one order.
    items = tuple(sorted(readable.split(split), key=lambda i: (i.label, i.path)))
    trained = frozenset[str]()
    if split != "train":
        trained = _own_train(data) if stored is None else stored.contents("train")
    shared = overlap(items, trained)
    refuse_overlap(shared, split=split, allow=allow_overlap)
    record = {"split_from": _origin(data, split), "overlap": len(shared), **counts(readable)}
    return EvaluationSplit(items, record, data.root)


def overlap(items: Sequence[Item], trained: frozenset[str]) -> tuple[Path, ...]:
    """Return the files whose digest is among those of the training images."""
    if not trained:
        return ()
    digest_of = digests(item.path for item in items)
    return tuple(i.path for i in items if digest_of.get(i.path) in trained)


def refuse_overlap(paths: Sequence[Path], *, split: str, allow: bool) -> None:
    """Refuse to measure on images that were trained on; warn where that is allowed."""
    if not paths:
        return
    what = f"{len(paths)} image(s) of split '{split}' were trained on: {join_names(paths)}"
    if not allow:
        raise DataError(
            what,
            expected="images that training did not see",
            fix="remove them from the split; or use --allow-overlap to measure anyway",
        )
    log.warning("%s; measured anyway (--allow-overlap)", what)


def _own_train(data: DataSet) -> frozenset[str]:
    return frozenset(digests(item.path for item in data.splits.get("train", ())).values())


def _origin(data: DataSet, split: str) -> str:
    if data.match is not None and data.match.known:
        return "stored"
    return "cut anew" if split in (data.cut or {}) else "folder"


def counts(data: DataSet) -> dict[str, Any]:
    """Return the counts of images left out, by reason, and how the stored split was matched."""
    left_out = {left.reason: left.count for left in data.left_out}
    return {"left_out": left_out, **(data.match.to_json() if data.match is not None else {})}
