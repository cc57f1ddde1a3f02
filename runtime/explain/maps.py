"""Heat maps, and the numbers that describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import View
from finedge.ops import softmax
from finedge.runtime.explain.grid import Grid

Array = NDArray[np.floating]
Unit = Literal["share", "gate", "evidence"]

# A map of shares reaches full colour at three times the uniform level or higher: an even map must
# look even.
FULL_SCALE = 3.0
SUM_TOLERANCE = 1e-3  # float32 sums of a few thousand shares


@dataclass(frozen=True)
class HeatMap:
    """Numbers [h, w] on a grid of the crop."""

    values: Array
    grid: Grid

    @property
    def effective(self) -> float:
        """The number of positions over which the positive part is spread, 1..h w.

        See `effective_positions`.
        """
        return float(effective_positions(np.maximum(self.values, 0).ravel()))

    @property
    def peak(self) -> tuple[float, float]:
        """Where the largest value is centred: (x, y) in pixels of the crop."""
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        return self.grid.x.at(float(column)), self.grid.y.at(float(row))


@dataclass(frozen=True)
class Panel:
    """One picture to draw.

    Attributes:
        view: where it comes from.
        title: caption.
        note: a second line.
        maps: one, or several to draw as small multiples.
        unit: `share`: a map sums to 1, and 1/N everywhere means no preference. `gate`: factors,
            usually 0..1. `evidence`: parts of a logit, of which the positive ones are drawn.
        full: the value drawn in full colour, > 0.
        mark: a query's position, (x, y) in pixels of the crop.
        numbers: more to report, by name.
    """

    view: View
    title: str
    note: str
    maps: tuple[HeatMap, ...]
    unit: Unit
    full: float
    mark: tuple[float, float] | None = None
    numbers: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def uniform(self) -> float | None:
        """The value of a map without preference; only shares have one."""
        return 1 / self.maps[0].values.size if self.unit == "share" else None


def attention_weights(q: Array, k: Array, *, scale: float) -> Array:
    """Return softmax(scale q^T k) over the key positions (CNL, arXiv 2005.09153).

    q [d, Hq, Wq], k [d, Hk, Wk] -> [Hq Wq, Hk Wk].
    """
    return softmax(scale * q.reshape(len(q), -1).T @ k.reshape(len(k), -1))


def effective_positions(values: Array) -> Array:
    """Return exp of the entropy of `values` >= 0 along the last axis, 1..N.

    Equal values give N, a single one 1, none 0.
    """
    total = values.sum(axis=-1, keepdims=True)
    p = values / np.where(total > 0, total, 1)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1)
    return np.where(total[..., 0] > 0, np.exp(entropy), 0.0)


def unit_of(maps: Array) -> Unit:
    """Tell shares (each of the maps [K, h, w] sums to 1: a softmax over positions) from gates."""
    return "share" if bool((np.abs(maps.sum(axis=(1, 2)) - 1) < SUM_TOLERANCE).all()) else "gate"


def full_scale(maps: Sequence[Array], unit: Unit) -> float:
    """Return the value to draw in full colour.

    It is at least three times the uniform level for shares, and at least 1 for gates.
    """
    largest = max(float(m.max()) for m in maps)
    if unit == "evidence":
        return largest if largest > 0 else 1.0
    return max(largest, FULL_SCALE / maps[0].size if unit == "share" else 1.0)
