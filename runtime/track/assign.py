"""The assignment of rows to columns with the least total cost.

The shortest augmenting path method (R. Jonker and A. Volgenant, Computing 38, 1987), exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(costs: NDArray[np.float64], *, limit: float) -> list[tuple[int, int]]:
    """Return (row, column) pairs, each row and column at most once, of the least total cost.

    A pair that costs more than `limit` is never made; leaving a row alone costs `limit`.

    Args:
        costs: [rows, columns], finite or infinite.
        limit: above 0.
    """
    rows, columns = costs.shape
    if not rows or not columns:
        return []
    # Each row has a column of its own that stands for no partner.
    alone = np.full((rows, rows), 2 * limit * (rows + 1))
    np.fill_diagonal(alone, limit)
    padded = np.hstack([np.minimum(costs, 2 * limit * (rows + 1)), alone])
    pairs = enumerate(_least(padded))
    return [(r, c) for r, c in pairs if c < columns and costs[r, c] <= limit]


def _least(costs: NDArray[np.float64]) -> list[int]:
    """Return the column of each row; there are at least as many columns as rows."""
    rows, columns = costs.shape
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, np.intp)  # 1 + row; column 0 holds the row to place
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        reach = np.full(columns + 1, np.inf)
        before, done = np.zeros(columns + 1, np.intp), np.zeros(columns + 1, bool)
        while owner[column]:
            done[column] = True
            current = owner[column]
            open_ = np.flatnonzero(~done[1:]) + 1
            step = costs[current - 1, open_ - 1] - row_price[current] - column_price[open_]
            nearer = open_[step < reach[open_]]
            before[nearer] = column
            reach[open_] = np.minimum(reach[open_], step)
            column = int(open_[reach[open_].argmin()])
            delta = reach[column]
            row_price[owner[done]] += delta
            column_price[done] -= delta
            reach[open_] -= delta
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    return [int(np.flatnonzero(owner[1:] == row)[0]) for row in range(1, rows + 1)]
