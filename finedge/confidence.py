"""Confidence calibration: a temperature for the scores, and the threshold of an answer.

`finedge calibrate` fits both on held-out images, for each variant by itself: INT8 probabilities
differ from float ones. A bundle that was calibrated on too few images, or not at all, has neither.
Its probabilities are the softmax of the network's own scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from finedge.errors import BundleError

STAGE = "calibrate"
KEY = "confidence"


@dataclass(frozen=True)
class Confidence:
    """How scores become probabilities and when the classifier abstains.

    Attributes:
        temperature: > 0; scores are divided by it before the softmax.
        reject: in [0, 1]; the answer is "unknown" where the top probability is below it.
    """

    temperature: float
    reject: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0 and 0 <= self.reject <= 1):
            raise BundleError(
                f"{self}",
                expected="temperature > 0 and reject in [0, 1]",
                fix="finedge calibrate BUNDLE --data DIR",
            )
