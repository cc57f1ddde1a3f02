"""What a placement did: which layers compute in INT8, which stay in float, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ATTENTION_STAYS = "attention: its softmax over hundreds of keys does not survive 8 bits"
NORMALISES = "normalises the frame, before the first quantized tensor"
MAKES_MASKS = "its output goes into a softmax: masks do not survive 8 bits"
DECIDES = "behind the last layer: 256 levels of logits would tie"
DYNAMIC_WEIGHT = "its weight is not a constant"


@dataclass(frozen=True)
class QuantizationReport:
    """Node names of Conv and Gemm in INT8, and of the nodes left in float with the reason."""

    int8: tuple[str, ...]
    stays_float: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the provenance record."""
        return asdict(self)
