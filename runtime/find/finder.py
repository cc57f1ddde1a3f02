"""What a finder is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box


class Finder(Protocol):
    """Finds the things in the frames of one source, one frame after another, from one thread."""

    def __call__(self, image: NDArray[np.uint8], *, seconds: float) -> tuple[Box, ...]:
        """Return the boxes in a frame, in its own pixels.

        Args:
            image: uint8 [H, W, 3] RGB, not to be changed.
            seconds: the frame's time on its source's own clock.
        """
