"""Finds what moves: OpenCV's background subtraction (MOG2) on a small copy of the frame.

The background is learned everywhere but where a thing is, for at most `HOLD_S`: a bird that sits
still is found all that time. A shaken camera or a light switch gives no boxes, and is learned fast.

MOG2: Z. Zivkovic and F. van der Heijden, Pattern Recognition Letters 27, 2006.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box
from finedge.runtime.find.merge import merged

Image = NDArray[np.uint8]

WIDTH = 320  # pixels of the small copy
LEARN_S = 20.0  # time constant of the background
RELEARN_S = 0.3  # the same while the picture is disturbed
SETTLE_S = 0.6  # no boxes for so long after a disturbance, and at the start
LEARN_EVERY_S = 0.15  # learning every frame would double the cost
HOLD_S = 60.0  # a thing that has not moved for so long becomes background
NOISE = 24.0  # MOG2's variance threshold (Mahalanobis distance squared); OpenCV's default is 16
DISTURBED = 0.45  # a larger share of changed pixels is no thing
JUMP = 25.0  # a change of the mean grey level from one frame to the next: a light was switched
SHAKEN = 1.5  # pixels of the small copy by which the whole picture moved
SHAKEN_FROM = 0.06  # phase correlation is computed from this share of changed pixels on
SURE = 0.15  # a weaker response of phase correlation says nothing
SMALLEST = 0.0006  # of the picture: smaller blobs are noise (35 pixels of 320 x 180)
GAP = 3  # pixels of the small copy between parts of one thing


@dataclass
class MotionFinder:
    """Boxes around what moves, in the frame's pixels.

    Attributes:
        ignored: uint8 [h, w], of any size: where it is not 0, nothing counts.
    """

    ignored: Image | None = None
    _model: cv2.BackgroundSubtractorMOG2 = field(init=False)
    _calm: Image | None = None  # the newest pixels that were background
    _held: NDArray[np.float32] | None = None  # since when each pixel is foreground, in s
    _last_mean: float = 0.0
    _learned_at: float = -math.inf
    _quiet_until: float = -math.inf
    _is_empty: bool = False

    def __post_init__(self) -> None:
        self._model = cv2.createBackgroundSubtractorMOG2(varThreshold=NOISE, detectShadows=False)

    def __call__(self, image: Image, *, seconds: float) -> tuple[Box, ...]:
        """Return the boxes in the next frame, uint8 [H, W, 3] RGB."""
        small = _small(image)
        if self._calm is None or self._calm.shape != small.shape or seconds < self._learned_at:
            self._start(small, seconds)
            return ()
        mask = np.asarray(self._model.apply(small, learningRate=self._rate(seconds)), np.uint8)
        if self.ignored is not None:
            mask[self._ignored(mask)] = 0
        if self._is_disturbed(small, mask):
            self._quiet_until = seconds + SETTLE_S
        if seconds < self._quiet_until:
            self._relearn(small, seconds)
            return ()
        foreground = _cleaned(mask)
        if seconds - self._learned_at >= LEARN_EVERY_S:
            self._learn(small, foreground, seconds)
        self._is_empty = not foreground.any()
        return _boxes(foreground, image.shape)

    def _start(self, small: Image, seconds: float) -> None:
        self._model.apply(small, learningRate=1)
        self._calm, self._learned_at = small.copy(), seconds
        self._held = np.full(small.shape[:2], np.inf, np.float32)
        self._last_mean, self._quiet_until = _mean(small), seconds + SETTLE_S

    def _ignored(self, mask: Image) -> NDArray[np.bool_]:
        assert self.ignored is not None
        if self.ignored.shape != mask.shape:
            size = mask.shape[::-1]
            self.ignored = cv2.resize(self.ignored, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
        return np.asarray(self.ignored) > 0

    def _is_disturbed(self, small: Image, mask: Image) -> bool:
        """Tell a light switch, a shaken camera, or a picture that changed nearly everywhere."""
        mean = _mean(small)
        jump, self._last_mean = abs(mean - self._last_mean), mean
        share = cv2.countNonZero(mask) / mask.size
        if jump > JUMP or share > DISTURBED:
            return True
        return share > SHAKEN_FROM and self._shift(small) > SHAKEN

    def _shift(self, small: Image) -> float:
        """Return by how many pixels the whole picture moved against the background."""
        assert self._calm is not None
        grey = [
            np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)
            for picture in (self._calm, small)
        ]
        (x, y), response = cv2.phaseCorrelate(*grey)
        return math.hypot(x, y) if response > SURE else 0.0

    def _relearn(self, small: Image, seconds: float) -> None:
        passed_s = max(0.0, seconds - self._learned_at)
        self._model.apply(small, learningRate=1 - math.exp(-passed_s / RELEARN_S))
        self._calm, self._learned_at = small.copy(), seconds
        self._held = np.full(small.shape[:2], np.inf, np.float32)

    def _rate(self, seconds: float) -> float:
        """Return how much to learn of a frame at once: nothing where something is in it.

        After an empty frame that halves the cost. A thing that comes is learned once, a little.
        """
        passed_s = seconds - self._learned_at
        if not self._is_empty or passed_s < LEARN_EVERY_S:
            return 0.0
        return 1 - math.exp(-passed_s / LEARN_S)

    def _learn(self, small: Image, foreground: Image, seconds: float) -> None:
        """Learn the frame, with the old background in place of the things in it."""
        assert self._calm is not None
        assert self._held is not None
        passed_s, self._learned_at = seconds - self._learned_at, seconds
        if self._is_empty:  # `_rate` has learned it
            if not foreground.any():
                self._calm = small
                self._held.fill(np.inf)
            return
        # A little more than the thing: its soft edge is not background either.
        thing = cv2.dilate(foreground, _disc(5)) > 0
        np.minimum(self._held, np.float32(seconds), out=self._held)
        self._held[~thing] = np.inf
        free = (seconds - self._held > HOLD_S) | ~thing
        cv2.copyTo(small, free.astype(np.uint8), self._calm)
        self._model.apply(self._calm, learningRate=1 - math.exp(-passed_s / LEARN_S))


def _small(image: Image) -> Image:
    """Return a copy of about `WIDTH` pixels a row, uint8 [h, w, 3]."""
    while image.shape[1] >= 4 * WIDTH and image.shape[0] > 1:
        # OpenCV halves a picture in a tenth of the time of another ratio.
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    height, width = image.shape[:2]
    size = (min(WIDTH, width), max(1, round(height * min(WIDTH, width) / width)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _mean(small: Image) -> float:
    return float(sum(cv2.mean(small)[:3]) / 3)


def _disc(side: int) -> Image:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))  # type: ignore[return-value]


def _cleaned(mask: Image) -> Image:
    """Return the foreground without single pixels, and with small gaps closed."""
    mask = cv2.medianBlur(mask, 3)  # type: ignore[assignment]
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(7))  # type: ignore[return-value]


def _boxes(foreground: Image, shape: tuple[int, ...]) -> tuple[Box, ...]:
    height, width = shape[:2]
    rows, columns = foreground.shape
    outlines, _ = cv2.findContours(foreground, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [_around(outline) for outline in outlines]
    parts = [box for box in parts if box.area >= SMALLEST * foreground.size / 3]
    smallest = SMALLEST * foreground.size
    wholes = [box for box in merged(parts, gap=GAP) if box.area >= smallest]
    return tuple(_scaled(box, width / columns, height / rows) for box in wholes)


def _around(outline: cv2.typing.MatLike) -> Box:
    x, y, w, h = cv2.boundingRect(outline)
    return Box(x, y, w, h)


def _scaled(box: Box, across: float, down: float) -> Box:
    left, top = math.floor(box.x * across), math.floor(box.y * down)
    right, bottom = math.ceil((box.x + box.w) * across), math.ceil((box.y + box.h) * down)
    return Box(left, top, right - left, bottom - top)
