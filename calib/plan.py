"""The plan of a quantization: every choice that the INT8 files of a float model follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finedge.calib.quantizers.report import AttentionMode


@dataclass(frozen=True)
class QuantizationPlan:
    """The choices that turn a float model and its calibration tables into INT8 files.

    Change one with `dataclasses.replace`.

    Attributes:
        method: the collector whose ranges are used.
        keep_float: the layers that stay in float in both files, by node name of the inlined model.
            The name of an attention node keeps that attention in float.
        bias_correction: the mean shift of each layer's output is taken from its bias.
        attention: which products of cross-layer attention are INT8 in the file for ONNX Runtime.
    """

    method: str = "max"
    keep_float: frozenset[str] = frozenset()
    bias_correction: bool = True
    attention: AttentionMode = "scores"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the provenance record."""
        return {
            "method": self.method,
            "keep_float": sorted(self.keep_float),
            "bias_correction": self.bias_correction,
            "attention": self.attention,
        }
