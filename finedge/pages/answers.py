"""The page of a training or an evaluation: learning curves, confused classes, accuracy by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finedge.confusion.counts import Confusion, Pair
from finedge.measure import wilson95
from finedge.pages.curves import HEIGHT, WIDTH, curves
from finedge.pages.matrix import table, whole
from finedge.pages.pictures import small_picture
from finedge.pages.template import render

PICTURE_SIDE = 132  # pixels; the page shows them at most this large
WORST_CLASSES = 15  # classes shown at once; the others unfold


@dataclass(frozen=True)
class AnswersPage:
    """What the page shows.

    Attributes:
        title: the heading: the run or the bundle.
        about: what was measured, in one line.
        confusion: the answers to the labelled images; there may be none.
        warnings: what makes the accuracy doubtful.
        epochs: the rows of metrics.jsonl; none for a bundle.
    """

    title: str
    about: str
    confusion: Confusion
    warnings: Sequence[str] = ()
    epochs: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ShownPair:
    """A pair with its two pictures as data: addresses; empty where a file cannot be read."""

    pair: Pair
    example: str
    typical: str


@dataclass(frozen=True)
class ClassRow:
    """The accuracy of a class, and the class that most of its errors went to."""

    label: str
    n: int
    right: int
    taken_for: str


def answers_page(content: AnswersPage) -> str:
    """Return the page, without outside assets or scripts."""
    confusion = content.confusion
    rows = class_rows(confusion)
    return render(
        "answers.html",
        page=content,
        findings=findings(confusion),
        curves=curves(content.epochs) if content.epochs else (),
        plot=(WIDTH, HEIGHT),
        pairs=tuple(_shown(pair) for pair in confusion.worst_pairs()),
        side=PICTURE_SIDE,
        picture=whole(confusion),
        table=table(confusion),
        rows=[row for row in rows if row.n],
        empty=sum(not row.n for row in rows),
        worst=WORST_CLASSES,
    )


def class_rows(confusion: Confusion) -> tuple[ClassRow, ...]:
    """Return every class, the lowest accuracy first."""
    counts, errors = confusion.counts, confusion.errors
    rows = [
        ClassRow(
            label,
            int(counts[i].sum()),
            int(counts[i, i]),
            f"{confusion.labels[int(errors[i].argmax())]} ({errors[i].max()})"
            if errors[i].any()
            else "",
        )
        for i, label in enumerate(confusion.labels)
    ]
    return tuple(sorted(rows, key=lambda row: (row.right / max(1, row.n), -row.n, row.label)))


def findings(confusion: Confusion) -> tuple[tuple[str, str], ...]:
    """Return (lead, rest) of each sentence on the accuracy and on where the errors are."""
    n = len(confusion.items)
    if not n:
        return (("No image was measured:", "the split is empty."),)
    wrong = int(confusion.errors.sum())
    low, high = (100 * bound for bound in wilson95(n - wrong, n))
    lead = f"{100 * (n - wrong) / n:.1f} % top-1"
    first = (lead, f"of {n} images (95 % interval {low:.1f}..{high:.1f}).")
    if not wrong:
        return (first, ("No answer is wrong.", ""))
    pairs = confusion.worst_pairs()
    confused = int(np.count_nonzero(confusion.errors))
    share = 100 * sum(pair.images for pair in pairs) / wrong
    text = f"{share:.0f} % of them are in the {len(pairs)} worst of {confused} confused pairs."
    return (first, (f"{wrong} answers are wrong.", text))


def _shown(pair: Pair) -> ShownPair:
    typical = small_picture(pair.typical.path, side=PICTURE_SIDE) if pair.typical else ""
    return ShownPair(pair, small_picture(pair.example.path, side=PICTURE_SIDE), typical)
