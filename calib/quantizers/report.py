"""What both quantizers share: INT8 weights, and the report of the layers in INT8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finedge.calib.ranges.calibration_table import INT8_MAX

ATTENTION_STAYS = "attention: its softmax over hundreds of keys does not survive 8 bits"
SOFTMAX_STAYS = "attention: only the softmax between its INT8 products is float"
NORMALISES = "normalises the frame, before the first quantized tensor"
MAKES_MASKS = "its output goes into a softmax: masks do not survive 8 bits"
DECIDES = "after the last layer: 256 levels of logits would tie"
DYNAMIC_WEIGHT = "its weight is not a constant"
RESTORED = "restored to float: INT8 costs too much accuracy there"

# Which products of cross-layer attention are INT8: none, queries by keys, or both.
AttentionMode = Literal["float", "scores", "int8"]


@dataclass(frozen=True)
class QuantizationReport:
    """Which layers of a file compute in INT8.

    Attributes:
        int8: the names of the Conv and Gemm nodes in INT8.
        stays_float: the names of the nodes left in float, each with the reason.
        attention: the cross-layer attention with INT8 products, by name, and which these are.
    """

    int8: tuple[str, ...]
    stays_float: dict[str, str]
    attention: Mapping[str, AttentionMode] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the provenance record."""
        return asdict(self)


def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a weight symmetrically, with one scale for each output channel (axis 0).

    Args:
        weight: float32 [out, ...]; a channel of zeros (pruned) gets scale 1.

    Returns:
        int8 values in [-127, 127], shaped like `weight`, and float32 scales [out].
        weight ~ values * scales.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float32)
    scales = largest / np.float32(INT8_MAX)
    scales[scales == 0] = 1
    steps = weight / scales.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(steps), -INT8_MAX, INT8_MAX).astype(np.int8), scales
