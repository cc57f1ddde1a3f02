"""What a detector's outputs are turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Size:
    """Of the network's input, in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Candidates:
    """Boxes in pixels of the network's input.

    Attributes:
        corners: [N, 4]: left, top, right, bottom.
        scores: [N, classes] in [0, 1], a column for each class; or [N], with `classes`.
        classes: [N], where a box has one class.
    """

    corners: NDArray[np.floating]
    scores: NDArray[np.floating]
    classes: NDArray[np.integer] | None = None


def from_middles(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return boxes [N, 4] of middle x, y, width and height as left, top, right, bottom."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return probabilities of logits."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))))
