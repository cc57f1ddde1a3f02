"""What every model is: images in, named outputs out, a loss, and the taps that export and verify compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from finedge.errors import UsageError, nearest
from finedge.spec import Output
from finedge.train.backbones import Backbone

# Standard deviation of the new linear layer by number of classes. CNL's code starts at Kaiming fan-out, made for its 200 classes; the
# fewer the classes, the larger that gets. Measured on the 81 of Grocery Store (linear layer on frozen EfficientNet-Lite0 features,
# best of three rates): small 65.7 %, kaiming 62.4 %.
HEAD_INITS: dict[str, Callable[[int], float]] = {"small": lambda classes: 0.01, "kaiming": lambda classes: (2 / classes) ** 0.5}


@dataclass(frozen=True)
class About:
    """Where a model comes from, what of it the source states, and what had to be reconstructed."""

    paper: str
    certain: str
    reconstructed: str


class FineGrained(nn.Module):
    """A fine-grained classifier; subclasses set `about` and `taps` and write `forward`.

    The head is the same for all (average pool, dropout, one linear layer), so that a difference in accuracy is the model's.

    Args:
        backbone: any.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1; 0.5 in CNL's code.
        head_init: a key of `HEAD_INITS`, where the linear layer starts.

    Attributes:
        backbone: its parameters learn at a tenth of the rate.
        outputs: what `forward` returns, by name.
        taps: submodule paths, in running order, each called once a forward; the module's output is one feature map.
        options: with name, backbone and num_classes, all that `build` needs to make this model again.
    """

    about: ClassVar[About]
    outputs: tuple[Output, ...] = (Output(),)
    taps: tuple[str, ...]
    options: dict[str, Any]

    def __init__(self, backbone: Backbone, num_classes: int, *, dropout: float, head_init: str) -> None:
        super().__init__()
        if head_init not in HEAD_INITS:
            raise UsageError(f"unknown head_init '{head_init}'", expected=nearest(head_init, HEAD_INITS))
        self.options = {"dropout": dropout, "head_init": head_init}
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone.feature_channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=HEAD_INITS[head_init](num_classes))
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {output name: float [B, num_classes]} for normalised images float [B, 3, H, W]."""
        raise NotImplementedError

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of the main output, a float32 scalar; target: int64 [B], or float [B, num_classes] shares."""
        main = next(output for output in self.outputs if output.role == "main")
        return F.cross_entropy(outputs[main.name].float(), target, label_smoothing=label_smoothing)

    def _head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(features.mean(dim=(2, 3))))
        return logits
