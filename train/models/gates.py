"""Paper 3, four networks: a fully convolutional head (`fcn`), and gates in every residual unit (`ca`, `sa`, `csca`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from finedge.bundle import View
from finedge.errors import UsageError, nearest
from finedge.train.backbones import Backbone
from finedge.train.layers.gates import (
    LEAST_HIDDEN,
    REDUCTION,
    ChannelGate,
    Gated,
    JointGate,
    SequentialGate,
    SpatialGate,
)
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.models.base import About, FineGrained
from finedge.train.models.plain import Plain

PAPER = "multi-attention fusion, Du and Ma (FCN, CA, SA and CSCA are four networks)"
WHERE = "the gate sits in the residual units"
START = (
    "behind the last BatchNorm of every residual branch, before the add, where SE and CBAM sit; a pretrained network starts unharmed: gates start at "
    "sigmoid(0) = 1/2 and that BatchNorm's weight and bias are doubled"
)
MOST_MASKS = 3  # shown by `finedge explain`


class FullyConvolutional(Plain):
    """FCN: the linear layer as a 1x1 convolution whose maps are averaged; the maps are the class activation maps (`maps`).

    The mean of the maps is the linear layer of the mean, so `forward` is the plain network's: a difference of rounding, and at 448
    pixels 0.08 GMAC less. The paper's own numbers agree: 76.5 against the baseline's 76.4 on CUB.
    """

    about = About(
        paper=PAPER,
        certain="the linear layer becomes a 1x1 convolution",
        reconstructed="the mean over the positions (CAM, arXiv 1512.04150)",
    )

    def maps(self, features: Tensor) -> Tensor:
        """Return the class activation maps [B, num_classes, h, w] of the last feature map; their mean over the positions is the logits."""
        return F.conv2d(features, self.classifier.weight[:, :, None, None], self.classifier.bias)


class Gates(FineGrained):
    """A backbone with a gate in every residual unit: what `ca`, `sa` and `csca` share.

    The gates live in the backbone's blocks, but are new: they learn at the full rate. In a frozen stage they stay as they start,
    without effect.

    Args:
        backbone: the modules at its `residual_ends` are replaced.
        num_classes: number of labels.
        gate: makes the gate for a number of channels.
        mask: path in the gate of the module that returns a mask [B, 1, h, w]; "" where there is none.
        passes: masks that a branch passes, one after the other.
        options: the model's other options, with `dropout`, `head_init` and `gain`.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        gate: Callable[[int], nn.Module],
        mask: str = "",
        passes: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(backbone, **options)
        if not backbone.residual_ends:
            raise UsageError(
                f"{backbone.name} names no residual branches to gate",
                expected="a backbone with residual units",
            )
        for end in backbone.residual_ends:
            branch = backbone.get_submodule(end)
            assert isinstance(branch, nn.BatchNorm2d)  # that is what residual_ends names
            backbone.set_submodule(
                end, Gated(branch, gate(branch.num_features), gain=options["gain"] ** passes)
            )
        self.classifier = LinearHead(
            backbone.feature_channels,
            num_classes,
            dropout=options["dropout"],
            head_init=options["head_init"],
        )
        masks = (
            {
                stage: f"backbone.{end}.gate.{mask}"
                for stage, end in _deepest_gates(backbone).items()
            }
            if mask
            else {}
        )
        blocks = dict.fromkeys((*backbone.stages, backbone.chain[-1]))
        self.taps = tuple(
            tap for block in blocks for tap in (masks.get(block), f"backbone.{block}") if tap
        )
        looks = (View(f"mask in the stage of {stage}", "mask", tap) for stage, tap in masks.items())
        self.views = (*looks, View("evidence for the class", "cam", self.taps[-1]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, num_classes]}."""
        return {"logits": self.classifier(pooled(self.backbone(images)))}

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the head and of the gates."""
        yield from super().new_parameters()
        for end in self.backbone.residual_ends:
            yield from self.backbone.get_submodule(f"{end}.gate").parameters()


class ChannelAttention(Gates):
    """CA: every residual branch times sigmoid(W2 ReLU(W1 mean(x))), a number a channel.

    Args:
        backbone: any with residual units.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: see `HEAD_INITS`.
        gain: what the BatchNorm of each branch is multiplied with before the first step; 2 makes up for the gates' 1/2, 1 leaves it at that.
    """

    about = About(
        paper=PAPER,
        certain=WHERE,
        reconstructed=f"{START}; squeeze-and-excitation with r = {REDUCTION} and biases (at least {LEAST_HIDDEN} hidden channels)",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
        gain: float = 2.0,
    ) -> None:
        super().__init__(
            backbone, num_classes, gate=ChannelGate, dropout=dropout, head_init=head_init, gain=gain
        )


class SpatialAttention(Gates):
    """SA: every residual branch times sigmoid(7x7 conv [mean over channels; max over channels]), a number a position; arguments as in `ChannelAttention`."""

    about = About(
        paper=PAPER,
        certain=WHERE,
        reconstructed=f"{START}; the spatial part of CBAM, 7x7 without bias or BatchNorm",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
        gain: float = 2.0,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            gate=lambda _: SpatialGate(),
            mask="mask",
            dropout=dropout,
            head_init=head_init,
            gain=gain,
        )


class ChannelSpatialAttention(Gates):
    """CSCA: channel and spatial attention mixed in one gate; arguments as in `ChannelAttention`, and one more.

    Args:
        backbone: any with residual units.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: see `HEAD_INITS`.
        gain: as in `ChannelAttention`; taken twice with order `sequential`, where a branch passes two gates.
        order: `joint`: one mask [B, C, h, w] = sigmoid(m_c + m_s); `sequential`: CBAM's, the channel gate and then the spatial gate.
    """

    about = About(
        paper=PAPER,
        certain=WHERE,
        reconstructed=f"{START}; one mask sigmoid(m_c + m_s) of the scores of `ca` and `sa`: 'confusion' most likely says 'mixed'; CBAM's order is an option",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
        gain: float = 2.0,
        order: str = "joint",
    ) -> None:
        if order not in ORDERS:
            raise UsageError(f"unknown order '{order}'", expected=nearest(order, ORDERS))
        gate, mask, passes = ORDERS[order]
        super().__init__(
            backbone,
            num_classes,
            gate=gate,
            mask=mask,
            passes=passes,
            dropout=dropout,
            head_init=head_init,
            gain=gain,
            order=order,
        )


# The gate, its mask to look at, and how many masks a branch passes.
ORDERS: dict[str, tuple[Callable[[int], nn.Module], str, int]] = {
    "joint": (JointGate, "scores.spatial_mask", 1),
    "sequential": (SequentialGate, "spatial.mask", 2),
}


def _deepest_gates(backbone: Backbone) -> dict[str, str]:
    """Return {stage: path of its last gate} of the last stages that have one, shallow to deep: a mask a resolution."""
    order = backbone.chain.index
    found: dict[str, str] = {}
    for end in backbone.residual_ends:
        stage = next(s for s in backbone.stages if order(s) >= order(end.rpartition(".")[0]))
        found[stage] = end
    return dict(list(found.items())[-MOST_MASKS:])
