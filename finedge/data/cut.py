"""Cutting val and test from train, so that a picture stays where it is when others come.

A picture goes by the hash of seed and content, u in [0, 1): below one bound it is test, below the
next val, else train. So no picture moves when others are added. Two rules of small classes bend
this: a class of three contents or more has one in each split, and a third of it at least is train.
Then the pictures nearest to a bound move. When others come they move back, towards train; only the
rule of the third can move one out of train. Copies of one content are one picture, never parted.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finedge.data.digest import digests
from finedge.data.record import DataSet, Item

VAL_OF_TRAIN = 0.1  # the share of train that becomes val
Parts = dict[str, tuple[Item, ...]]
TEST = 0.2  # the share of a folder without splits that becomes test


def with_cuts(data: DataSet, *, seed: int) -> DataSet:
    """Return the data set with val cut from train if it has none, and test if it has no split."""
    test = 0.0 if data.given else TEST
    val = 0.0 if data.splits.get("val") else VAL_OF_TRAIN * (1 - test)
    if not test and not val:
        return data
    parts = _cut(data.splits.get("train", ()), {"test": test, "val": val}, seed=seed)
    cut: dict[str, Any] = {
        "seed": seed,
        **({"test": test} if test else {}),
        **({"val": VAL_OF_TRAIN} if val else {}),
    }
    splits = {
        **data.splits,
        "train": parts["train"],
        **{s: parts[s] for s in ("val", "test") if cut.get(s)},
    }
    return replace(data, splits=splits, cut=cut)


def _cut(items: Sequence[Item], shares: Mapping[str, float], *, seed: int) -> Parts:
    known = digests(item.path for item in items)
    by_label: dict[int, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        by_label[item.label][known.get(item.path, str(item.path))].append(item)
    where: dict[tuple[int, str], str] = {}
    for label, contents in by_label.items():
        splits = _placed(list(contents), shares, seed=seed)
        where |= {(label, content): split for content, split in splits.items()}
    parts: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for item in items:
        parts[where[item.label, known.get(item.path, str(item.path))]].append(item)
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
    """Return where each part ends in an order of `count`; none is empty, a third is train."""
    most = max(min(len(bounds), count - 1), 2 * count // 3) if count > 1 else 0
    ends: list[int] = []
    for place, bound in enumerate(bounds):
        least = ends[-1] + 1 if ends else 1
        later = len(bounds) - place - 1 if most >= len(bounds) else 0  # parts that want one each
        room = most - later
        ends.append(max(min(max(bound, least), room), ends[-1] if ends else 0))
    return [max(0, min(end, most)) for end in ends]


def _unit(content: str, seed: int) -> float:
    """Return a number in [0, 1) that is as good as random, and the same everywhere."""
    return (
        int.from_bytes(
            hashlib.sha256(f"{seed}-{content}".encode("utf-8", "surrogateescape")).digest()[:7],
            "big",
        )
        / 2**56
    )
