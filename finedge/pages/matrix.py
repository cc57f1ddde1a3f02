"""The confusion matrix on a page: a table of few classes, and a picture of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.confusion.counts import Confusion
from finedge.confusion.order import similar_order, worst_block

TABLE_CLASSES = 14  # the most classes whose counts are written out
NAMED_ROWS = 100  # the most classes whose names stand beside the picture
LEVELS = 6  # shades of the picture
MAX_CELLS = 30_000  # drawn cells; those with the smallest share are left out
MAX_TITLES = 250  # cells of errors that answer to the mouse


@dataclass(frozen=True)
class Cell:
    """One cell of the table: images, its shade in 0..1, whether it is on the diagonal."""

    images: int
    shade: float
    right: bool
    title: str


@dataclass(frozen=True)
class Table:
    """The counts among some classes; `rows` are (name, cells, images answered outside of them)."""

    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...], int], ...]


@dataclass(frozen=True)
class Picture:
    """The whole matrix, one unit a cell, row = class, column = answer.

    Attributes:
        size: classes.
        order: the labels in the order of rows and columns.
        named: whether the labels stand beside the rows.
        paths: (right or wrong, opacity, SVG path) of each shade.
        titles: (column, row, text) of the cells with the most errors.
        left_out: cells that are not drawn.
    """

    size: int
    order: tuple[str, ...]
    named: bool
    paths: tuple[tuple[str, float, str], ...]
    titles: tuple[tuple[int, int, str], ...]
    left_out: int


def whole(confusion: Confusion) -> Picture | None:
    """Return the picture of all classes; None where a table shows them all."""
    if len(confusion.labels) <= TABLE_CLASSES:
        return None
    order = similar_order(confusion.counts)
    counts = confusion.counts[np.ix_(order, order)]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    rows, columns = np.nonzero(shares)
    largest = np.argsort(-shares[rows, columns], kind="stable")[:MAX_CELLS]
    drawn = np.zeros_like(counts, dtype=bool)
    drawn[rows[largest], columns[largest]] = True
    labels = tuple(confusion.labels[i] for i in order)
    return Picture(
        len(order),
        labels,
        named=len(order) <= NAMED_ROWS,
        paths=_paths(shares, drawn),
        titles=_titles(counts, labels),
        left_out=len(rows) - len(largest),
    )


def table(confusion: Confusion) -> Table | None:
    """Return the counts of all classes if they are few, else of those that are confused most.

    None where every answer is right and there are many classes.
    """
    if len(confusion.labels) <= TABLE_CLASSES:
        block = similar_order(confusion.counts)
    else:
        block = worst_block(confusion.errors, size=TABLE_CLASSES)
    if not block:
        return None
    counts = confusion.counts[np.ix_(block, block)]
    totals = confusion.counts.sum(axis=1)[block]
    labels = tuple(confusion.labels[i] for i in block)
    rows = tuple(
        (label, _cells(counts[i], labels, i, int(totals[i])), int(totals[i] - counts[i].sum()))
        for i, label in enumerate(labels)
    )
    return Table(labels, rows)


def _cells(
    counts: NDArray[np.int64], labels: Sequence[str], row: int, total: int
) -> tuple[Cell, ...]:
    return tuple(
        Cell(
            int(images),
            _shade(int(images) / max(1, total)),
            right=column == row,
            title=_title(labels[row], labels[column], int(images), total),
        )
        for column, images in enumerate(counts)
    )


def _shade(share: float) -> float:
    """Return how dark a cell is, in 0..1; the root makes few errors visible."""
    return round(math.sqrt(share), 3)


def _paths(
    shares: NDArray[np.float64], drawn: NDArray[np.bool_]
) -> tuple[tuple[str, float, str], ...]:
    """Return an SVG path for each shade, of the diagonal and of the errors."""
    levels = np.ceil(np.sqrt(shares) * LEVELS).astype(int)
    diagonal = np.eye(len(shares), dtype=bool)
    paths = []
    for name, mask in (("right", drawn & diagonal), ("wrong", drawn & ~diagonal)):
        for level in range(1, LEVELS + 1):
            rows, columns = np.nonzero(mask & (levels == level))
            cells = zip(rows.tolist(), columns.tolist(), strict=True)
            path = "".join(f"M{column} {row}h1v1h-1z" for row, column in cells)
            if path:
                paths.append((name, round(level / LEVELS, 2), path))
    return tuple(paths)


def _titles(counts: NDArray[np.int64], labels: Sequence[str]) -> tuple[tuple[int, int, str], ...]:
    errors = counts - np.diag(np.diag(counts))
    rows, columns = np.nonzero(errors)
    totals = counts.sum(axis=1)
    largest = np.argsort(-errors[rows, columns], kind="stable")[:MAX_TITLES]
    cells = [(int(rows[i]), int(columns[i])) for i in largest]
    return tuple(
        (c, r, _title(labels[r], labels[c], int(errors[r, c]), int(totals[r]))) for r, c in cells
    )


def _title(truth: str, answer: str, images: int, total: int) -> str:
    if truth == answer:
        return f"{truth}: {images} of {total} right"
    return f"{truth} taken for {answer}: {images} of {total}"
