"""What INT8 costs on the decision set, and what it may cost on images that were not trained on.

The network knows its training images by heart: the margins are large, and INT8 changes few of the
answers. So each image is also seen through a hard view: perspective, deformation and clutter of
`evaluate --robustness`, one after another. EfficientNet-Lite0 on Grocery Store, INT8 by max with
bias correction (benchmarks/results/max_drop/views-grocery-plain-bicubic.json; a margin is the
difference of the two largest scores):

    images                        n    float top-1   margins below 0.5   answers that INT8 changes
    as they are                 256        100.0 %               0.0 %                       0.0 %
    in their hard views         256         83.2 %              19.5 %                       2.3 %
    test                       2485         79.2 %              13.4 %                       2.2 %

A paired drop of a few changed answers is mostly chance. The expected drop has a smaller error: the
float probability of the float answer less that of the INT8 answer, 0 where both are equal. On the
test images it is 0.05 +- 0.01 points, where -0.16 +- 0.24 were lost (with one standard error).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.calib.decision.compare import Comparison, Decision, compare_scores
from finedge.calib.decision.decision_set import DecisionImages, load_decision_images
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.image import read_image
from finedge.ops import softmax
from finedge.preprocess import preprocess as preprocess_image
from finedge.progress import progress_bar
from finedge.spec import Preprocess
from finedge.synthetic.perturb import perturb

HARD_VIEW = ("perspective", "deformation", "clutter")
ONE_SIDED_95 = 1.6448536  # standard errors


@dataclass(frozen=True)
class Damage:
    """What a model loses against its float model on the decision set.

    Attributes:
        comparison: image by image.
        expected: the drop that the float probabilities predict for each image, float64 [n], >= 0.
    """

    comparison: Comparison
    expected: NDArray[np.float64]

    @property
    def kl(self) -> float:
        """The mean of KL(float || model), in nats."""
        return self.comparison.kl

    @property
    def drop(self) -> float:
        """What top-1 loses on these images, as a share; negative where it gains."""
        return self.comparison.drop

    @cached_property
    def limit(self) -> float:
        """The upper end of the expected drop's one-sided 95 % interval, as a share.

        Half of the images are hard views. They alone count: the others would halve it.
        """
        hard = self.expected[len(self.expected) // 2 :]
        error = float(hard.std()) / math.sqrt(len(hard))
        return float(hard.mean()) + ONE_SIDED_95 * error

    def within(self, budget: float) -> bool:
        """Tell whether the observed drop and the limit are at most `budget`, a share."""
        return self.drop <= budget and self.limit <= budget

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of the record, with six digits."""
        changed = 1 - self.comparison.agreement
        numbers = {"kl": self.kl, "changed": changed, "drop": self.drop, "drop_limit": self.limit}
        return {name: round(value, 9 if name == "kl" else 6) for name, value in numbers.items()}


def measure_damage(decision: Decision, scores: NDArray[np.float32]) -> Damage:
    """Return the damage of the model that gave these scores on the images of `decision`."""
    return damage_of(decision.float_scores, scores, labels=decision.images.labels)


def damage_of(
    float_scores: NDArray[np.float32], scores: NDArray[np.float32], *, labels: NDArray[np.intp]
) -> Damage:
    """Compare scores [n, classes] with those of the float model: n / 2 images, then hard views."""
    probabilities, rows = softmax(float_scores.astype(np.float64)), np.arange(len(scores))
    before, after = float_scores.argmax(axis=1), scores.argmax(axis=1)
    expected = probabilities[rows, before] - probabilities[rows, after]
    return Damage(compare_scores(float_scores, scores, labels=labels), expected)


def with_hard_views(sample: CalibrationSet, preprocess: Preprocess) -> DecisionImages:
    """Read the decision set: every image as it is, and then every image in its hard view."""
    plain = load_decision_images(sample, preprocess)
    hard = np.stack(list(_hard_views(sample, preprocess)))
    return DecisionImages(np.concatenate([plain.frames, hard]), np.tile(plain.labels, 2))


def first_images(images: DecisionImages, *, count: int) -> DecisionImages:
    """Return the first `count` images of a set with hard views, each with its hard view."""
    half = len(images.labels) // 2
    chosen = np.arange(2 * half).reshape(2, half)[:, :count].ravel()
    return DecisionImages(images.frames[chosen], images.labels[chosen])


def _hard_views(sample: CalibrationSet, preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
    with progress_bar("making hard views", len(sample.items)) as advance:
        for index, item in enumerate(sample.items):
            frame = read_image(item.path)
            for name in HARD_VIEW:
                frame = perturb(frame, name, index=index)
            yield preprocess_image(frame, preprocess)
            advance(1)
