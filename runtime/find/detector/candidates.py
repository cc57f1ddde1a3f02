"""What a detector's outputs are turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_CLASSES = 1_000_000
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

    @property
    def fit_together(self) -> bool:
        """Whether the shapes are those above, for the same N."""
        boxes = len(self.corners)
        if self.corners.shape != (boxes, 4):
            return False
        if self.classes is not None:
            return self.scores.shape == self.classes.shape == (boxes,)
        return self.scores.ndim == 2 and len(self.scores) == boxes and self.scores.shape[1] > 0


def from_middles(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return boxes [N, 4] of middle x, y, width and height as left, top, right, bottom."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def class_numbers(values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the numbers of classes; -1 for what is none (NaN, below 0, past all counting)."""
    numbers = np.asarray(values, np.float64)
    is_number = (numbers >= 0) & (numbers < MAX_CLASSES)
    return np.where(is_number, numbers, -1).astype(np.int64)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return probabilities of logits."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))))
