"""What makes a probability worth believing: a temperature for the scores, and the least probability that is still an answer.

Both are fitted by `finedge calibrate` on images the network did not learn from, for each variant by itself: INT8 is not as sure
of itself as float. A bundle that was not calibrated, or on too few images, has neither: its probabilities are the network's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finedge.errors import BundleError

if TYPE_CHECKING:
    from finedge.bundle import Bundle

STAGE = "calibrate"
KEY = "confidence"


@dataclass(frozen=True)
class Confidence:
    """Scores are divided by `temperature` (> 0) before the softmax; a top probability below `reject` (in [0, 1]) means: unknown."""

    temperature: float
    reject: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0 and 0 <= self.reject <= 1):
            raise BundleError(
                f"{self}",
                expected="temperature > 0 and reject in [0, 1]",
                fix="finedge calibrate BUNDLE --data DIR",
            )


def confidence_of(bundle: Bundle, variant: str) -> Confidence | None:
    """Return what was fitted for a variant, or None.

    Raises:
        BundleError: the record is damaged.
    """
    return bundle.calibration.confidence.get(variant)
