"""Class-balanced parts of a split, for calibration and quick evaluations."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import chain, zip_longest

from finedge.data import Item
from finedge.errors import UsageError


def balanced_order(items: tuple[Item, ...], *, seed: int) -> list[Item]:
    """Order images so that every prefix is as even over the classes as possible.

    Classes and images are shuffled by `seed`.
    """
    by_label: dict[int, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda i: str(i.path)):
        by_label[item.label].append(item)
    groups = [by_label[label] for label in sorted(by_label)]
    shuffle = random.Random(seed).shuffle
    for group in groups:
        shuffle(group)
    shuffle(groups)
    return [item for item in chain.from_iterable(zip_longest(*groups)) if item is not None]


def first_balanced(items: tuple[Item, ...], images: int) -> tuple[Item, ...]:
    """Return the first `images` of the balanced order with seed 0; 0 returns all.

    Raises:
        UsageError: `images` is negative.
    """
    if images < 0:
        raise UsageError(f"--images {images}", expected="a number of images, or 0 for all")
    return tuple(balanced_order(items, seed=0)[: images or None])
