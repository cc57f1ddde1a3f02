"""From the outputs of the first pass to the input of the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.preprocess import preprocess_batch
from finedge.runtime.explain.open import OpenViews
from finedge.runtime.explain.views import ExplainOptions
from finedge.runtime.look_twice.window import cut, whole, window

Outputs = Mapping[str, NDArray[np.float32]]
Frames = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class SecondLook:
    """Cuts the second look out of frames.

    Attributes:
        views: one view, whose map has the peak.
        share: side of the second crop, as a share of the first one's.
    """

    views: OpenViews
    share: float

    def crops(self, outputs: Outputs, frames: Frames) -> NDArray[np.uint8]:
        """Return the input of the second pass, uint8 [B, crop, crop, 3].

        Args:
            outputs: of the first pass, [B, ...], with the tensors of the view.
            frames: that were prepared for it, uint8 [H, W, 3] each, at full resolution.

        Raises:
            UsageError: not one frame for each row.
        """
        spec = self.views.bundle.spec
        rows = len(outputs[spec.main.name])
        if len(frames) != rows:
            raise UsageError(
                f"{len(frames)} frames for {rows} answers",
                expected="the frames of the batch: the second look is cut out of them",
            )
        config = spec.preprocess
        parts = (
            cut(frame, window(frame.shape[:2], config, peak=peak, share=self.share))
            for frame, peak in zip(frames, self.peaks(outputs), strict=True)
        )
        return preprocess_batch(parts, whole(config), count=rows)

    def peaks(self, outputs: Outputs) -> list[tuple[float, float]]:
        """Return where the map of each row is largest: (x, y) in pixels of the first crop."""
        (view,) = self.views.views
        rows = len(outputs[self.views.bundle.spec.main.name])
        insides = (
            self.views.inside(
                {name: array[row : row + 1] for name, array in outputs.items()},
                options=ExplainOptions(),
            )
            for row in range(rows)
        )
        return [view.heat(inside).peak for inside in insides]
