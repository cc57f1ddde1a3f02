"""Whether the INT8 file computes all of cross-layer attention in INT8: the decision set says it.

`scores` gives the answers of float attention (`finedge.calib.quantizers.onnxruntime.attention`).
`int8` also quantizes the weights of the values: it is faster, and kept where it keeps the answers.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from finedge.calib.decision.compare import Comparison, Decision, compare_scores
from finedge.calib.decision.method import BEYOND_CHANCE, method_record
from finedge.calib.int8_files import CalibratedModel, CpuModel, make_cpu_model
from finedge.calib.plan import QuantizationPlan
from finedge.graph.attention import attention_nodes
from finedge.graph.inlining import inline
from finedge.measure import mcnemar
from finedge.ops import softmax
from finedge.provenance import MethodRecord

log = logging.getLogger(__name__)

# What the agreement with the float model may lose, as a share of the images.
MAX_LOSS = 0.005
SIGNIFICANT = 0.05
BLOCK = 64  # images of the decision set between two looks at the choice


@dataclass(frozen=True)
class AttentionChoice:
    """Both modes against the float model, and whether `int8` keeps the answers of `scores`.

    Attributes:
        scores: the mode `scores`.
        int8: the mode `int8`.
        lost: what the probability of the float model's answer is lower by in `int8`, float64 [n].
    """

    scores: Comparison
    int8: Comparison
    lost: NDArray[np.float64]

    @property
    def keeps_answers(self) -> bool:
        """At most 0.5 % fewer images agree, and not significantly fewer (McNemar)."""
        lost, gained = self._changes
        fewer = (lost - gained) / len(self.lost)
        return fewer <= 0 or (fewer <= MAX_LOSS and mcnemar(lost, gained) > SIGNIFICANT)

    @property
    def is_clear(self) -> bool:
        """Whether more images would not change the choice.

        A few images have hardly an answer that changes, but each has a probability. `int8` is clear
        where no more answers were lost than gained, and the upper end of the 99 % interval of the
        mean loss of probability is below 0.5 %. It is clearly refused where the lower end is above.
        """
        lost, gained = self._changes
        mean, error = float(self.lost.mean()), float(self.lost.std()) / math.sqrt(len(self.lost))
        if mean - BEYOND_CHANCE * error > MAX_LOSS:
            return not self.keeps_answers
        return lost <= gained and mean + BEYOND_CHANCE * error < MAX_LOSS

    @property
    def _changes(self) -> tuple[int, int]:
        """Answers of the float model that only `scores` gives, and those that only `int8` gives."""
        scores, int8 = self.scores.agrees, self.int8.agrees
        return int((scores & ~int8).sum()), int((int8 & ~scores).sum())

    def records(self, images: int) -> tuple[MethodRecord, ...]:
        """Return the rows of both modes for the provenance record."""
        modes = {"scores": self.scores, "int8": self.int8}
        return tuple(method_record(mode, images, result) for mode, result in modes.items())


def has_cross_layer_attention(model: onnx.ModelProto) -> bool:
    """Tell whether there is anything to choose."""
    return bool(attention_nodes(inline(model)))


def choose_attention(
    calibrated: CalibratedModel, plan: QuantizationPlan, *, decision: Decision
) -> tuple[CpuModel, AttentionChoice]:
    """Return the CPU model in the mode that the decision set allows, and the comparison.

    The images are run in blocks, and no more of them than the choice needs (`is_clear`).
    """
    scores, int8 = (
        make_cpu_model(calibrated, replace(plan, attention=mode)) for mode in ("scores", "int8")
    )
    choice = _compare(decision, scores.model, int8.model)
    chosen = int8 if choice.keeps_answers else scores
    log.info(
        "attention in INT8: agreement with float %.4f, with its softmax weights in float %.4f: %s",
        choice.int8.agreement,
        choice.scores.agreement,
        chosen.plan.attention,
    )
    return chosen, choice


def _compare(
    decision: Decision, scores_model: onnx.ModelProto, int8_model: onnx.ModelProto
) -> AttentionChoice:
    """Compare both models with the float model, block by block, until the choice is clear."""
    scorers = [decision.open(m) for m in (decision.model, scores_model, int8_model)]
    frames, labels = decision.images.frames, decision.images.labels
    so_far = [np.empty((0, len(decision.spec.labels)), np.float32) for _ in scorers]
    for start in range(0, len(labels), BLOCK):
        block = frames[start : start + BLOCK]
        so_far = [np.concatenate([s, run(block)]) for s, run in zip(so_far, scorers, strict=True)]
        choice = attention_choice(*so_far, labels=labels[: start + BLOCK])
        if choice.is_clear:
            break
    return choice


def attention_choice(
    float_scores: NDArray[np.float32],
    scores: NDArray[np.float32],
    int8: NDArray[np.float32],
    *,
    labels: NDArray[np.intp],
) -> AttentionChoice:
    """Compare the scores [n, classes] of both modes with those of the float model."""
    answers, rows = float_scores.argmax(axis=1), np.arange(len(labels))
    p_scores, p_int8 = (softmax(s.astype(np.float64))[rows, answers] for s in (scores, int8))
    return AttentionChoice(
        compare_scores(float_scores, scores, labels=labels),
        compare_scores(float_scores, int8, labels=labels),
        p_scores - p_int8,
    )
