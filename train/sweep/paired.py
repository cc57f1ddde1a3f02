"""Paired comparison of two models over seeds and images: a two-way bootstrap.

A difference of two models varies with the seed of the training and with the images of the test.
One interval covers both only where both are drawn again (crossed random effects: Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007). It is slightly too wide rather than
too narrow in the images; with fewer than five seeds it is too narrow in the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
CHUNK = 500  # draws at a time: 12 MB of products for 3,000 images
Counts = NDArray[np.int16]
TAIL = 2.5  # percent on each side of a 95 % interval


@dataclass(frozen=True)
class Difference:
    """How much more a model has right than another one, in points of top-1.

    Attributes:
        mean: over seeds and images.
        low: end of the 95 % interval.
        high: end of the 95 % interval.
        p: two-sided, that there is no difference.
        seeds: that both models have.
        images: that both classified.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    images: int


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Compare two models on the same seeds and images.

    Args:
        first: right answers, bool [seeds, images].
        second: right answers of the other model, of the same shape and order.
        draws: of the bootstrap.
        seed: of the draws.
    """
    if first.shape != second.shape or first.ndim != 2 or first.size == 0:
        raise ValueError(f"right answers of shapes {first.shape} and {second.shape}")
    differences = 100 * (first.astype(np.float64) - second.astype(np.float64))
    means = bootstrap_means(differences, draws=draws, seed=seed)
    low, high = np.percentile(means, (TAIL, 100 - TAIL))
    return Difference(
        mean=float(differences.mean()),
        low=float(low),
        high=float(high),
        p=two_sided(means),
        seeds=first.shape[0],
        images=first.shape[1],
    )


def bootstrap_means(values: NDArray[np.float64], *, draws: int, seed: int) -> NDArray[np.float64]:
    """Return the mean of each draw [draws]: rows and columns of [R, C] are drawn again."""
    rows, columns = values.shape
    totals: list[NDArray[np.float64]] = [
        ((row_counts @ values) * column_counts).sum(axis=1)
        for row_counts, column_counts in _counts(rows, columns, draws=draws, seed=seed)
    ]
    means: NDArray[np.float64] = np.concatenate(totals) / (rows * columns)
    return means


@lru_cache(maxsize=2)  # a table has many comparisons of one shape, and drawing is most of the time
def _counts(rows: int, columns: int, *, draws: int, seed: int) -> list[tuple[Counts, Counts]]:
    """Return how often each row and each column is drawn, in chunks of draws."""
    generator = np.random.default_rng(seed)
    chunks = []
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        drawn = (generator.multinomial(n, np.full(n, 1 / n), size) for n in (rows, columns))
        row_counts, column_counts = (counts.astype(np.int16) for counts in drawn)
        chunks.append((row_counts, column_counts))
    return chunks


def two_sided(means: NDArray[np.float64]) -> float:
    """Return twice the smaller share of draws at or beyond 0; at least 2 / (draws + 1)."""
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(means) + 1))
