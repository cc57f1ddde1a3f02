"""Whether the INT8 file computes all of cross-layer attention in INT8: the decision set says it.

`scores` gives the answers of float attention (`finedge.calib.quantizers.onnxruntime.attention`).
`int8` also quantizes the weights of the values: it is faster, and kept where it keeps the answers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finedge.calib.decision.method import method_record
from finedge.calib.int8_files import CalibratedModel, cpu_model
from finedge.calib.plan import QuantizationPlan
from finedge.graph.attention import attention_nodes
from finedge.graph.inlining import inline
from finedge.measure import mcnemar
from finedge.provenance import MethodRecord

if TYPE_CHECKING:
    import onnx

    from finedge.calib.decision.compare import Comparison, Decision

log = logging.getLogger(__name__)

# What the agreement with the float model may lose, as a share of the images.
MAX_LOSS = 0.005
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class AttentionChoice:
    """Both modes against the float model, and whether `int8` keeps the answers of `scores`."""

    scores: Comparison
    int8: Comparison

    @property
    def keeps_answers(self) -> bool:
        """At most 0.5 % fewer images agree, and not significantly fewer (McNemar)."""
        lost = int((self.scores.agrees & ~self.int8.agrees).sum())
        gained = int((self.int8.agrees & ~self.scores.agrees).sum())
        fewer = (lost - gained) / len(self.scores.agrees)
        return fewer <= 0 or (fewer <= MAX_LOSS and mcnemar(lost, gained) > SIGNIFICANT)

    def records(self, images: int) -> tuple[MethodRecord, ...]:
        """Return the rows of both modes for the provenance record."""
        modes = {"scores": self.scores, "int8": self.int8}
        return tuple(method_record(mode, images, result) for mode, result in modes.items())


def has_cross_layer_attention(model: onnx.ModelProto) -> bool:
    """Tell whether there is anything to choose."""
    return bool(attention_nodes(inline(model)))


def choose_attention(
    calibrated: CalibratedModel, plan: QuantizationPlan, *, decision: Decision
) -> tuple[QuantizationPlan, AttentionChoice]:
    """Return `plan` with the mode of attention that the decision set allows, and the comparison."""
    scores, int8 = replace(plan, attention="scores"), replace(plan, attention="int8")
    choice = AttentionChoice(
        *(decision.compare(cpu_model(calibrated, option)) for option in (scores, int8))
    )
    chosen = int8 if choice.keeps_answers else scores
    log.info(
        "attention in INT8: agreement with float %.4f, with its softmax weights in float %.4f: %s",
        choice.int8.agreement,
        choice.scores.agreement,
        chosen.attention,
    )
    return chosen, choice
