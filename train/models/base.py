"""The base class of all models: images in, named outputs out, a loss, and taps.

Taps are the feature maps that export and verify compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from finedge.bundle import View
from finedge.spec import Output
from finedge.train.backbones import Backbone

# The stages of these backbones end in a ReLU. The stages of the others are plain sums, with values
# 3 to 9 times as large on EfficientNet-Lite0.
ACTIVATED = ("resnet", "wrn", "wide_resnet", "resnext")


@dataclass(frozen=True)
class About:
    """Where a model comes from, what its source states, and what had to be reconstructed."""

    paper: str
    certain: str
    reconstructed: str


class FineGrained(nn.Module):
    """A fine-grained classifier.

    Subclasses set `about`, `taps` and `views`, add their layers and a head, and write `forward`.
    Every model takes the options `dropout` (before its last linear layers) and `head_init` (a key
    of `HEAD_INITS`), so that one recipe trains them all.

    Shapes: normalised images float [B, 3, H, W] -> {output name: float [B, num_classes]}.

    Args:
        backbone: any.
        options: all keyword arguments of the subclass, as plain data.

    Attributes:
        backbone: its parameters learn at the lower rate of the backbone, except those that
            `new_parameters` yields.
        outputs: what `forward` returns, by name; in training it may return more, for `loss`.
        taps: submodule paths in running order. Each module runs once in a forward, and its output
            is one feature map [B, C, h, w].
        views: how `finedge explain` shows some of the taps.
        options: with name, backbone and num_classes, all that `build_model` needs to build this
            model again.
        former: what a run does that does not record an option, because it is older than the option
            (runs record all options). Only options whose default is not that value are listed.
    """

    about: ClassVar[About]
    former: ClassVar[Mapping[str, Any]] = {}
    outputs: tuple[Output, ...] = (Output(),)
    taps: tuple[str, ...]
    views: tuple[View, ...] = ()
    options: dict[str, Any]

    def __init__(self, backbone: Backbone, **options: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.options = options

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {output name: float [B, num_classes]} for normalised images float [B, 3, H, W]."""
        raise NotImplementedError

    def loss(
        self, outputs: Mapping[str, Tensor], target: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Return the mean cross-entropy of the main output, a float32 scalar.

        Target: int64 [B], or probabilities float [B, num_classes].
        """
        main = next(output for output in self.outputs if output.role == "main")
        return F.cross_entropy(outputs[main.name].float(), target, label_smoothing=label_smoothing)

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the untrained parameters, which learn at the full rate: all but the backbone's."""
        for name, parameter in self.named_parameters():
            if not name.startswith("backbone."):
                yield parameter
