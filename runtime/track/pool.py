"""The probabilities of all frames of a track as one answer, and its best crop."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box

SIDE = 64  # pixels of the copy on which sharpness is measured
SHARP = 150.0  # variance of the Laplacian at which a crop has half of the full weight

CUT = 0.3  # how much a crop counts whose thing is partly outside the frame


@dataclass(frozen=True)
class SureRule:
    """When the label of a track is fixed.

    That is after `seconds`, or at the end of the track, with at least `frames` classified frames,
    once the pooled probability of the first label is at least `p` and leads the second by `margin`.
    It then stays for the track's life. `p` is raised to the bundle's own threshold where there is
    one.
    """

    seconds: float = 0.8
    frames: int = 4
    p: float = 0.4
    margin: float = 0.15


@dataclass
class Pool:
    """What is known of one track.

    Attributes:
        frames: how many were added.
        weight: their weights together.
        p: the weighted mean of their probabilities, [classes]; empty before the first.
        label: the fixed label's index; None until it is sure.
        crop: the best crop so far, uint8 [H, W, 3] RGB, and where it was.
    """

    frames: int = 0
    weight: float = 0.0
    p: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    label: int | None = None
    crop: NDArray[np.uint8] | None = None
    box: Box | None = None
    _best: float = 0.0

    def add(self, p: NDArray[np.floating], *, weight: float) -> None:
        """Add a frame's probabilities [classes] with a weight above 0."""
        self.frames += 1
        self.weight += weight
        if not self.p.size:
            self.p = np.zeros(len(p))
        self.p = self.p + (p - self.p) * (weight / self.weight)

    def keep_best(self, crop: NDArray[np.uint8], box: Box, *, weight: float) -> None:
        """Keep a copy of the crop if it has the largest weight so far."""
        if weight > self._best:
            self._best, self.crop, self.box = weight, crop.copy(), box

    def fix(self, rule: SureRule, *, seconds: float, least_p: float = 0.0) -> None:
        """Fix the label if it is sure after `seconds` of this track."""
        if self.label is not None or self.frames < rule.frames or seconds < rule.seconds:
            return
        second, first = np.sort(self.p)[-2:] if len(self.p) > 1 else (0.0, self.p[-1])
        if first >= max(rule.p, least_p) and first - second >= rule.margin:
            self.label = int(self.p.argmax())

    def absorb(self, later: Pool) -> None:
        """Add all frames of another part of the same track."""
        total = self.weight + later.weight
        if later.frames and total > 0:
            mine = self.p if self.p.size else np.zeros(len(later.p))
            self.p = (mine * self.weight + later.p * later.weight) / total
        self.frames, self.weight = self.frames + later.frames, total
        if later._best > self._best:
            self._best, self.crop, self.box = later._best, later.crop, later.box
        self.label = later.label if self.label is None else self.label


def weight_of(crop: NDArray[np.uint8], *, whole: int, cut: bool = False) -> float:
    """Return how much a crop counts, above 0 and at most 1: sharp and large ones count most.

    Args:
        crop: uint8 [S, S, 3] RGB.
        whole: the side of the network's input, in pixels; a larger crop counts no more.
        cut: the box touches the edge of the frame, so a part of the thing is missing.
    """
    size = min(1.0, max(crop.shape[:2]) / whole)
    small = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    weight = size * sharpness / (sharpness + SHARP) * (CUT if cut else 1.0)
    return float(max(1e-3, weight))
