"""Confidence calibration: a temperature and a rejection threshold for each variant of a bundle.

A network trained to the end is more sure than it is right. Its scores are divided by one number T
before the softmax, which changes no answer (temperature scaling: Guo et al. 2017, arXiv
1706.04599).

Below the rejection threshold the runtime abstains: it answers "unknown". The threshold follows a
rule that an operator can check. It is the highest that rejects at most a share of the right
answers (5 %, `finedge calibrate --max-false-rejects`). Two results are measured, not chosen:
`coverage`, the share of images that still get an answer, and `accuracy_accepted`, how many of those
are right. Out-of-distribution pictures, of no class at all, take no part in the fit: how many are
rejected depends on what they are.

The images are those of `finedge.calib.held_out.images`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.calib.held_out.images import FLOAT, SPLIT, HeldOutScores
from finedge.ops import softmax
from finedge.reliability import calibration_error, reliability

log = logging.getLogger(__name__)

BOUNDS = (0.05, 20.0)  # of T
MAX_FALSE_REJECTS = 0.05
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
TOLERANCE = 1e-5  # of log T


@dataclass(frozen=True)
class ConfidenceFit:
    """The confidence of one variant, and its effect on `n` held-out images; shares in [0, 1].

    Attributes:
        temperature: divides the scores before the softmax.
        reject: the runtime abstains below this top probability.
        max_false_rejects: the largest share of right answers that may be rejected.
        n: the number of held-out images.
        ece_before: the expected calibration error with 15 bins, at temperature 1.
        ece_after: the same at `temperature`.
        coverage: the share of images that still get an answer.
        accuracy: the share of all images whose answer is right.
        accuracy_accepted: the share of the covered images whose answer is right.
        file: the file that was run.
        split: the split of the images.
    """

    temperature: float
    reject: float
    max_false_rejects: float
    n: int
    ece_before: float
    ece_after: float
    coverage: float
    accuracy: float
    accuracy_accepted: float
    file: str = ""
    split: str = SPLIT

    def to_json(self) -> dict[str, Any]:
        """Return the record for the manifest: numbers with six digits.

        The threshold is rounded down, so that it rejects no more. `max_false_rejects` has its key
        of bundle format 1, "give_up".
        """
        numbers = {k: round(v, 6) if isinstance(v, float) else v for k, v in vars(self).items()}
        record = {"give_up" if k == "max_false_rejects" else k: v for k, v in numbers.items()}
        return {**record, "reject": math.floor(1e6 * self.reject) / 1e6}


def fit_confidence(
    held: HeldOutScores, *, max_false_rejects: float = MAX_FALSE_REJECTS
) -> dict[str, ConfidenceFit]:
    """Fit each variant of a bundle on the file that ONNX Runtime runs of it here.

    For int8 that is model.int8.cpu.onnx. TensorRT, which runs model.int8.onnx, uses the same
    numbers. fp16 has those of fp32 where it was not run on all images (`variant_scores`).

    Examples:
        >>> fits = fit_confidence(variant_scores(bundle, held_out(data)))
        >>> fits["int8"].temperature
        1.37
    """
    run = {name: FLOAT if held.same_as_float(name) else name for name in held.variants}
    fits = {
        name: fit(
            held.scores[source],
            held.labels,
            max_false_rejects=max_false_rejects,
            file=held.files[source],
        )
        for name, source in run.items()
    }
    for variant, result in fits.items():
        _log_fit(variant, result)
    return fits


def _log_fit(variant: str, result: ConfidenceFit) -> None:
    log.info(
        "%s (%s): temperature %.3f, calibration error %.3f -> %.3f on %d held-out images",
        variant,
        result.file,
        result.temperature,
        result.ece_before,
        result.ece_after,
        result.n,
    )
    log.info(
        "%s: unknown below %.3f; %.1f %% of them are answered, %.1f %% of these rightly",
        variant,
        result.reject,
        100 * result.coverage,
        100 * result.accuracy_accepted,
    )


def fit(
    scores: NDArray[np.floating],
    labels: NDArray[np.intp],
    *,
    max_false_rejects: float = MAX_FALSE_REJECTS,
    file: str = "",
) -> ConfidenceFit:
    """Fit a temperature and a threshold.

    Args:
        scores: [n, classes], logits or log-probabilities.
        labels: the true class of each image, [n].
        max_false_rejects: the largest share of right answers to reject, in [0, 1).
        file: the name of the file that the scores come from.
    """
    right = scores.argmax(axis=1) == labels
    temperature = fit_temperature(scores, labels)
    before, after = (_top_probability(scores, t) for t in (1.0, temperature))
    reject = threshold(after, right, max_false_rejects=max_false_rejects)
    accepted = after >= reject
    return ConfidenceFit(
        temperature,
        reject,
        max_false_rejects,
        len(labels),
        calibration_error(reliability(before, right)),
        calibration_error(reliability(after, right)),
        coverage=float(accepted.mean()),
        accuracy=float(right.mean()),
        accuracy_accepted=float(right[accepted].mean()) if accepted.any() else 0.0,
        file=file,
    )


def fit_temperature(scores: NDArray[np.floating], labels: NDArray[np.intp]) -> float:
    """Return T in [0.05, 20] with the smallest mean -log softmax(scores / T)[label].

    It stays 1 where no answer is wrong. Such images bound T from one side only, and the fit would
    end at the smallest T allowed.
    """
    if (scores.argmax(axis=1) == labels).all():
        log.warning(
            "every held-out image is classified rightly: they cannot show an answer that is too "
            "sure, so the temperature stays 1"
        )
        return 1.0

    def loss(log_t: float) -> float:
        z = scores.astype(np.float64) / math.exp(log_t)
        z -= z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(labels)), labels]).mean())

    low, high = (math.log(b) for b in BOUNDS)
    temperature = math.exp(_golden_section(loss, low, high))
    if min(temperature / BOUNDS[0], BOUNDS[1] / temperature) < 1.01:
        log.warning(
            "the temperature %.3g is at the end of the allowed range: these scores cannot be "
            "trusted as probabilities",
            temperature,
        )
    return temperature


def threshold(
    probabilities: NDArray[np.floating],
    right: NDArray[np.bool_],
    *,
    max_false_rejects: float = MAX_FALSE_REJECTS,
) -> float:
    """Return the highest threshold that rejects at most a share of the right answers.

    Args:
        probabilities: the top probability of each image, float [n].
        right: whether the answer is true, bool [n]; where none is, the threshold is 0.
        max_false_rejects: the share of the right answers, in [0, 1).
    """
    of_right = np.sort(probabilities[right])
    if not len(of_right):
        return 0.0
    # The smallest number is added since 0.02 * 150 is a little less than 3 in floating point.
    return float(of_right[int(max_false_rejects * len(of_right) + 1e-9)])


def _top_probability(scores: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    top: NDArray[np.floating] = softmax(scores.astype(np.float64) / temperature).max(axis=1)
    return top


def _golden_section(loss: Callable[[float], float], low: float, high: float) -> float:
    """Return where a loss with one valley is smallest, by golden-section search.

    The mean loss is convex in 1 / T, so it has one valley in log T as well.
    """
    left, right = high - GOLDEN_RATIO * (high - low), low + GOLDEN_RATIO * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > TOLERANCE:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN_RATIO * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN_RATIO * (high - low)
            at_right = loss(right)
    return (low + high) / 2
