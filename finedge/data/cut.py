"""Cuts val and test from train, so that a picture stays in its split when others are added.

The hash of seed and content gives each picture a number u in [0, 1). Below one bound it is test,
below the next it is val, else train. So no picture moves when others are added.

Two rules for small classes are exceptions. A class of three contents or more has one in each split,
and at least a third of it is train. Then the pictures nearest to a bound move. When others are
added, they move back towards train. Only the rule of the third can move one out of train. Copies of
one content count as one picture and stay together.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finedge.data.digest import digests
from finedge.data.record import DataSet, Item

VAL_OF_TRAIN = 0.1  # the share of train that becomes val, where no other is asked for
Parts = dict[str, tuple[Item, ...]]
TEST = 0.2  # the share of a folder without splits that becomes test


def with_cuts(data: DataSet, *, seed: int, val_share: float = VAL_OF_TRAIN) -> DataSet:
    """Return the data set with val cut from train if it has none, and test if it has no split.

    `val_share` is the share of train that becomes val. With 0 there is no val, and the record of
    the cut says so.
    """
    test = 0.0 if data.has_splits else TEST
    has_val = bool(data.splits.get("val"))
    val = 0.0 if has_val else val_share * (1 - test)
    if not test and not val:
        return data if has_val else replace(data, cut={"seed": seed, "val": 0.0})
    parts = _cut(data.splits.get("train", ()), {"test": test, "val": val}, seed=seed)
    cut: dict[str, Any] = {"seed": seed}
    if test:
        cut["test"] = test
    if not has_val:
        cut["val"] = val_share
    new_splits = {split: parts[split] for split in ("val", "test") if cut.get(split)}
    return replace(data, splits={**data.splits, "train": parts["train"], **new_splits}, cut=cut)


def _cut(items: Sequence[Item], shares: Mapping[str, float], *, seed: int) -> Parts:
    digest_of = digests(item.path for item in items)
    by_label: dict[int, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        by_label[item.label][digest_of.get(item.path, str(item.path))].append(item)
    split_of: dict[tuple[int, str], str] = {}
    for label, contents in by_label.items():
        splits = _placed(list(contents), shares, seed=seed)
        split_of |= {(label, content): split for content, split in splits.items()}
    parts: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for item in items:
        parts[split_of[item.label, digest_of.get(item.path, str(item.path))]].append(item)
    return {split: tuple(items) for split, items in parts.items()}


def _placed(contents: Sequence[str], shares: Mapping[str, float], *, seed: int) -> dict[str, str]:
    """Return the split of each content of one class."""
    order = sorted(contents, key=lambda c: (_unit(c, seed), c))
    targets = [split for split, share in shares.items() if share]
    bounds, bound = [], 0.0
    for split in targets:
        bound += shares[split]
        bounds.append(sum(_unit(c, seed) < bound for c in order))
    ends = _part_ends(bounds, len(order))
    splits: dict[str, str] = {}
    start = 0
    for split, end in zip(targets, ends, strict=True):
        splits |= dict.fromkeys(order[start:end], split)
        start = end
    return {**splits, **dict.fromkeys(order[start:], "train")}


def _part_ends(bounds: Sequence[int], count: int) -> list[int]:
    """Return the end of each part in an order of `count`; none is empty, a third stays train."""
    max_end = max(min(len(bounds), count - 1), 2 * count // 3) if count > 1 else 0
    ends: list[int] = []
    for place, bound in enumerate(bounds):
        min_end = ends[-1] + 1 if ends else 1
        # Each later part needs one picture.
        later_parts = len(bounds) - place - 1 if max_end >= len(bounds) else 0
        end = min(max(bound, min_end), max_end - later_parts)
        ends.append(max(end, ends[-1] if ends else 0))
    return [max(0, min(end, max_end)) for end in ends]


def _unit(content: str, seed: int) -> float:
    """Return a pseudo-random number in [0, 1) that is the same on every machine."""
    text = f"{seed}-{content}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big") / 2**56
