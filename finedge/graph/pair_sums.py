"""INT8 weights made to fit kernels that add two products in 16 bits.

x86 CPUs without VNNI multiply unsigned activations, 0 to 255, by signed weights with `vpmaddubsw`.
It adds the products of two neighbours, 255 w[k] + 255 w[k+1] at most, and clamps the sum to 16
bits. So two neighbours fit if their positive parts, and their negative parts, add up to at most
128: 255 * 128 = 32640. Neighbours of unlike sign always fit.

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
WEIGHT_LIMIT = 127
# Scales that are tried for a row. The largest weight of a row, 127, stays exact with each of them.
SCALES = tuple(step / 127 for step in range(127, 63, -1))
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


def pair_sums(rows: NDArray[np.integer]) -> NDArray[np.int16]:
    """Return the largest sum of each pair of neighbours without its sign, [rows, ceil(K / 2)].

    A pair of unlike signs has the larger of the two: the other activation may be 0.
    """
    first, second = _pairs(rows.astype(np.int16))
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.minimum(first, 0) + np.minimum(second, 0)
    largest: NDArray[np.int16] = np.maximum(positive, -negative)
    return largest


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
    exact = (rows[changed] * scales[changed, None]).astype(np.float32)
    fitted, cut = _cut_pairs(np.rint(exact).astype(np.int16))
    values[changed] = _keep_sums(fitted, exact).astype(np.int8)
    return FittedRows(values, scales, cut)


def _best_scales(sums: NDArray[np.int16], length: int, *, one_scale: bool) -> NDArray[np.float64]:
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


def _cut_pairs(rows: NDArray[np.int16]) -> tuple[NDArray[np.int16], int]:
    """Return rows whose pairs fit, and how many pairs were cut: both weights by half the excess."""
    first, second = _pairs(rows)
    row, column = np.nonzero((np.abs(first + second) > PAIR_LIMIT) & (first * second > 0))
    one, other = first[row, column], second[row, column]
    excess = np.abs(one + other) - PAIR_LIMIT
    share = excess // 2 + (excess % 2) * (np.abs(one) >= np.abs(other))
    sign = np.sign(one)
    fitted = rows.copy()
    fitted[row, 2 * column] -= sign * share
    fitted[row, 2 * column + 1] -= sign * (excess - share)
    return fitted, len(row)


def _keep_sums(rows: NDArray[np.int16], exact: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return rows with the sums of `exact`, to half a step: some weights take the next step."""
    fitted = rows.copy()
    residues = exact - rows
    missing = np.rint(residues.sum(axis=1)).astype(np.int64)
    # Both weights of a pair may take a step away from 0.
    has_room = np.repeat(pair_sums(rows) <= PAIR_LIMIT - 2, 2, axis=1)[:, : rows.shape[1]]
    has_room &= np.abs(rows) < WEIGHT_LIMIT
    for row in np.flatnonzero(missing):
        sign = int(np.sign(missing[row]))
        free = has_room[row] | (rows[row] * sign < 0)
        farness = np.where(free, residues[row] * -sign, np.inf)
        count = min(abs(int(missing[row])), int(free.sum()))
        if count:
            # Stable: equal weights are equally far, and every CPU must choose the same of them.
            fitted[row, np.argsort(farness, kind="stable")[:count]] += sign
    return fitted


def _pairs(rows: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return the first and the second weight of each pair; an odd row ends with a 0."""
    padded = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    return padded[:, 0::2], padded[:, 1::2]
