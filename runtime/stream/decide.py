"""From the probabilities of one frame after another to an answer: smoothing and holding a label.

Each rule is a frozen configuration and a small state that takes one frame at a time. None of them
looks at a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError

# The mean change of a 16x16 grey thumbnail, on [0, 1], from one frame to the next. Measured: at
# most 0.064 within two videos (a car that fills the picture drives off), at least 0.115 between 200
# different photos. A bird that replaces another in front of the same background changes 0.01 to
# 0.03 and is no scene change.
SCENE_CHANGE = 0.09
THUMBNAIL = 16
MARGIN = 0.1


@dataclass(frozen=True)
class Smoothing:
    """Average probabilities with weights that fall to 1/e in `seconds` (> 0).

    The average starts again after a scene change.
    """

    seconds: float
    scene_change: float = SCENE_CHANGE

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise UsageError(
                f"smoothing over {self.seconds} s",
                expected="a positive number of seconds (0 on the command line: none)",
            )


@dataclass
class SceneChange:
    """Tells the first frame of a scene, by a thumbnail of the frame before."""

    threshold: float = SCENE_CHANGE
    _last: NDArray[np.float32] | None = None

    def __call__(self, image: NDArray[np.uint8]) -> bool:
        """Take the next frame, uint8 [H, W, 3] RGB; the first one starts a scene."""
        last, self._last = self._last, thumbnail(image)
        return last is None or float(np.abs(self._last - last).mean()) > self.threshold


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the frame as float32 [16, 16] grey in [0, 1]."""
    # It is made smaller before it is made grey: 256 pixels to convert, not two million.
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)


@dataclass
class Smoother:
    """The exponential moving average of probabilities: p + (new - p) * (1 - exp(-dt / seconds))."""

    smoothing: Smoothing
    _p: NDArray[np.floating] | None = None
    _at: float = 0.0

    def __call__(self, p: NDArray[np.floating], *, seconds: float) -> NDArray[np.floating]:
        """Take the next frame's probabilities [classes] and its time; return the average.

        The average sums to 1, as the probabilities do.
        """
        if self._p is None:
            self._p = p
        else:
            passed_s = max(0.0, seconds - self._at)
            weight = 1 - math.exp(-passed_s / self.smoothing.seconds)
            self._p = self._p + (p - self._p) * weight
        self._at = seconds
        return self._p

    def reset(self) -> None:
        """Start again with the next frame."""
        self._p = None


@dataclass(frozen=True)
class Holding:
    """Keep a label until another leads it by `margin` in probability, `frames` times in a row."""

    frames: int
    margin: float = MARGIN

    def __post_init__(self) -> None:
        if self.frames < 1 or not 0 <= self.margin <= 1:
            raise UsageError(
                f"holding for {self.frames} frames with margin {self.margin}",
                expected="at least 1 frame, a margin in [0, 1]",
            )


@dataclass
class Holder:
    """The held label, its challenger, and for how many frames that has led."""

    holding: Holding
    _held: int | None = None
    _challenger: int | None = None
    _frames: int = 0

    def __call__(self, p: NDArray[np.floating]) -> int:
        """Take the next frame's probabilities [classes]; return the held label."""
        best = int(p.argmax())
        if self._held is None:
            self._held = best
        leads = best != self._held and p[best] - p[self._held] >= self.holding.margin
        self._frames = (self._frames + 1 if best == self._challenger else 1) if leads else 0
        self._challenger = best if leads else None
        if self._frames >= self.holding.frames:
            self._held, self._challenger, self._frames = best, None, 0
        return self._held

    def reset(self) -> None:
        """Start again with the next frame."""
        self._held = self._challenger = None
        self._frames = 0


@dataclass(frozen=True)
class Rules:
    """How answers are decided. Without either rule the model alone decides."""

    smoothing: Smoothing | None = None
    holding: Holding | None = None


@dataclass
class Decider:
    """Decides for one source, with its own state."""

    rules: Rules
    _scene: SceneChange = field(init=False)
    _smoother: Smoother | None = field(init=False)
    _holder: Holder | None = field(init=False)

    def __post_init__(self) -> None:
        smoothing, holding = self.rules.smoothing, self.rules.holding
        self._scene = SceneChange(smoothing.scene_change if smoothing else SCENE_CHANGE)
        self._smoother = Smoother(smoothing) if smoothing else None
        self._holder = Holder(holding) if holding else None

    def __call__(
        self, p: NDArray[np.floating], *, seconds: float | None, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.floating], int]:
        """Take a frame's probabilities [classes], its time and the pixels that the model saw.

        Smoothing needs the time.

        Returns:
            The probabilities to report, and the label that is the answer: the most probable one,
            or the held one.
        """
        if (self._smoother or self._holder) and self._scene(image):
            for state in (self._smoother, self._holder):
                if state is not None:
                    state.reset()
        if self._smoother is not None:
            if seconds is None:
                raise ValueError("smoothing needs the time of each frame")
            p = self._smoother(p, seconds=seconds)
        return p, self._holder(p) if self._holder else int(p.argmax())
