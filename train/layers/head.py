"""The head of most models: dropout and one linear layer on averaged features."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from finedge.errors import UsageError, nearest

# Standard deviation of the new linear layer by its inputs and outputs. CNL's code starts at Kaiming
# fan-out, made for its 200 classes; it grows as the classes get fewer. Measured on the 81 classes
# of Grocery Store (linear layer on frozen EfficientNet-Lite0 features, best of three rates): small
# 65.7 %, kaiming 62.4 %.
# Kaiming fan-in is that of Attend and Rectify's code: 0.056 for the 640 inputs of its WRN, where
# fan-out is 0.447 for 10 classes.
HEAD_INITS: dict[str, Callable[[int, int], float]] = {
    "small": lambda features, classes: 0.01,
    "kaiming": lambda features, classes: (2 / classes) ** 0.5,
    "fan_in": lambda features, classes: (2 / features) ** 0.5,
}


class LinearHead(nn.Linear):
    """Dropout and a linear layer; `head_init` sets its initial weights, its bias starts at 0.

    Shapes: [B, features] -> [B, num_classes].

    Args:
        features: inputs.
        num_classes: outputs.
        dropout: before the linear layer, 0..1; 0.5 in CNL's code.
        head_init: a key of `HEAD_INITS`.
    """

    def __init__(self, features: int, num_classes: int, *, dropout: float, head_init: str) -> None:
        super().__init__(features, num_classes)
        if head_init not in HEAD_INITS:
            raise UsageError(
                f"unknown head_init '{head_init}'", expected=nearest(head_init, HEAD_INITS)
            )
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.weight, std=HEAD_INITS[head_init](features, num_classes))
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, num_classes] of averaged features [B, features]."""
        return super().forward(self.dropout(features))


def pooled(features: Tensor) -> Tensor:
    """Return the mean over positions: [B, C, h, w] -> [B, C]."""
    return features.mean(dim=(2, 3))
