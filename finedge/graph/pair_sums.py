"""INT8 weights made to fit kernels that add two products in 16 bits.

x86 CPUs without VNNI multiply unsigned activations, 0 to 255, by signed weights with `vpmaddubsw`.
It adds the products of two neighbours, 255 w[k] + 255 w[k+1] at most, and clamps the sum to 16 bits.
So two neighbours fit if their positive parts, and their negative parts, add up to at most 128:
255 * 128 = 32640. Neighbours of unlike sign always fit.

`fit_rows` changes as few weights as it can. A row is the weights of one output channel in the order
in which the kernel adds their products. Two means are weighed against each other, row by row:

- the row is scaled down, and every weight is rounded again: an error of about 1/12 step^2 a weight;
- the few pairs that are too large are cut: no other weight changes.

Where the errors of a row would not add up to 0, the weights that are nearest to the next step take
it. The answer to a constant input is then kept to half a step, and so is the mean of the outputs
as far as the inputs have one mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# 255 * 128 = 32640 <= 32767, and 255 * 129 does not fit. Below zero it is the same.
PAIR_LIMIT = 128
# Scales that are tried for a row. The error changes slowly between two of them.
SCALES = tuple(float(s) for s in np.linspace(1.0, 0.5, 51))
# The mean squared error of rounding, in steps.
ROUNDING = 1 / 12


@dataclass(frozen=True)
class FittedRows:
    """Weights that fit.

    Attributes:
        values: int8 [rows, K].
        scales: float64 [rows], 0.5 to 1: `values / scales` stands for the weights as they were.
        cut: how many pairs were cut, in all rows.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float64]
    cut: int


def pair_sums(rows: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the largest sum of each pair of neighbours without its sign, [rows, ceil(K / 2)].

    A pair of unlike signs has the larger of the two: the other activation may be 0.
    """
    pairs = _paired(rows.astype(np.int64))
    positive, negative = np.maximum(pairs, 0).sum(axis=2), np.minimum(pairs, 0).sum(axis=2)
    return np.maximum(positive, -negative)


def fit_rows(rows: NDArray[np.int8], *, one_scale: bool = False) -> FittedRows:
    """Return weights whose pairs fit in 16 bits.

    Args:
        rows: int8 [rows, K], in the order in which the kernel adds the products.
        one_scale: all rows share one scale.
    """
    sums = pair_sums(rows)
    scales = _best_scales(sums, rows.shape[1], one_scale=one_scale)
    changed = np.flatnonzero((scales < 1) | (sums > PAIR_LIMIT).any(axis=1))
    values = rows.copy()
    exact = rows[changed] * scales[changed, None]
    fitted, cut = _cut_pairs(np.rint(exact).astype(np.int64))
    values[changed] = _keep_sums(fitted, exact).astype(np.int8)
    return FittedRows(values, scales, cut)


def _best_scales(
    sums: NDArray[np.int64], length: int, *, one_scale: bool
) -> NDArray[np.float64]:
    """Return the scale of each row that has the least expected squared error."""
    row, column = np.nonzero(sums > PAIR_LIMIT)
    large = sums[row, column].astype(np.float64)
    errors = np.empty((len(SCALES), len(sums)))
    for i, scale in enumerate(SCALES):
        excess = np.maximum(scale * large - PAIR_LIMIT, 0)
        rounding = 0.0 if scale == 1 else length * ROUNDING
        # Both weights of a pair take half of the excess.
        cutting = np.bincount(row, weights=excess**2 / 2, minlength=len(sums))
        errors[i] = (rounding + cutting) / scale**2
    if one_scale:
        errors[:] = errors.sum(axis=1, keepdims=True)
    scales: NDArray[np.float64] = np.asarray(SCALES)[errors.argmin(axis=0)]
    return scales


def _cut_pairs(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Return rows whose pairs fit, and how many pairs were cut: both weights by half the excess."""
    pairs = _paired(rows).copy()
    excess = np.abs(pairs.sum(axis=2)) - PAIR_LIMIT
    same_sign = np.sign(pairs[..., 0]) * np.sign(pairs[..., 1]) > 0
    excess = np.where(same_sign, np.maximum(excess, 0), 0)
    larger = np.abs(pairs[..., 0]) >= np.abs(pairs[..., 1])
    first = excess // 2 + (excess % 2) * larger
    sign = np.sign(pairs)
    pairs[..., 0] -= sign[..., 0] * first
    pairs[..., 1] -= sign[..., 1] * (excess - first)
    return pairs.reshape(len(rows), 2 * pairs.shape[1])[:, : rows.shape[1]], int((excess > 0).sum())


def _keep_sums(
    rows: NDArray[np.int64], exact: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return rows with the sums of `exact`, to half a step: some weights take the next step."""
    fitted = rows.copy()
    residues = exact - rows
    missing = np.rint(residues.sum(axis=1)).astype(np.int64)
    free = np.repeat(pair_sums(rows) <= PAIR_LIMIT - 2, 2, axis=1)[:, : rows.shape[1]]
    free &= np.abs(rows) < PAIR_LIMIT - 2
    for row in np.flatnonzero(missing):
        sign, count = np.sign(missing[row]), abs(int(missing[row]))
        wanted = np.where(free[row], residues[row] * sign, -np.inf)
        count = min(count, int(free[row].sum()))
        steps = np.argpartition(wanted, len(wanted) - count)[len(wanted) - count :] if count else []
        fitted[row, steps] += sign
    return fitted


def _paired(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [rows, ceil(K / 2), 2]: an odd row ends with a 0."""
    odd = rows.shape[1] % 2
    padded = np.pad(rows, ((0, 0), (0, odd)))
    return padded.reshape(len(rows), padded.shape[1] // 2, 2)
