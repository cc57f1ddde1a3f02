"""Multi-attention fusion (Du and Ma): four networks.

A fully convolutional head (`fcn`), and gates in every residual unit (`ca`, `sa`, `csca`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from finedge.bundle import View
from finedge.errors import UsageError, nearest
from finedge.train.backbones import Backbone
from finedge.train.layers.gates import (
    MIN_HIDDEN,
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
CERTAIN = "the gate sits in the residual units"
START = (
    "after the last BatchNorm of every residual branch, before the add, where SE and CBAM sit; a "
    "pretrained network starts unchanged: gates start at sigmoid(0) = 1/2 and that BatchNorm's "
    "weight and bias are doubled"
)
MAX_MASKS = 3  # that `finedge explain` shows


class FullyConvolutional(Plain):
    """FCN: the linear layer as a 1x1 convolution whose maps are averaged.

    The maps are the class activation maps (`maps`). The mean of the maps is the linear layer of the
    mean, so `forward` is the plain network's: the difference is rounding, and 0.08 GMAC less at 448
    pixels. The paper's numbers agree: 76.5 against the baseline's 76.4 on CUB.
    """

    about = About(
        paper=PAPER,
        certain="the linear layer becomes a 1x1 convolution",
        reconstructed="the mean over the positions (CAM, arXiv 1512.04150)",
    )

    def maps(self, features: Tensor) -> Tensor:
        """Return the class activation maps [B, num_classes, h, w] of the last feature map.

        Their mean over the positions is the logits.
        """
        return F.conv2d(features, self.classifier.weight[:, :, None, None], self.classifier.bias)


class GatedBackbone(FineGrained):
    """A backbone with a gate in every residual unit: the base of `ca`, `sa` and `csca`.

    The gates are part of the backbone's blocks, but untrained: they learn at the full rate. In a
    frozen stage they keep their initial values, which have no effect.

    Shapes: images float [B, 3, H, W] -> "logits" [B, num_classes].

    Args:
        backbone: the modules at its `residual_ends` are replaced.
        num_classes: number of labels.
        gate: builds the gate for a number of channels.
        mask: path in the gate of the module that returns a mask [B, 1, h, w]; empty where there is
            none.
        passes: number of masks that a branch passes, one after the other.
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
            assert isinstance(branch, nn.BatchNorm2d)  # by the definition of residual_ends
            backbone.set_submodule(
                end, Gated(branch, gate(branch.num_features), gain=options["gain"] ** passes)
            )
        self.classifier = LinearHead(
            backbone.feature_channels,
            num_classes,
            dropout=options["dropout"],
            head_init=options["head_init"],
        )
        gates = _deepest_gates(backbone) if mask else {}
        masks = {stage: f"backbone.{end}.gate.{mask}" for stage, end in gates.items()}
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


class ChannelGatedBackbone(GatedBackbone):
    """CA: every residual branch times sigmoid(W2 ReLU(W1 mean(x))), one number for each channel.

    Args:
        backbone: any with residual units.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: see `HEAD_INITS`.
        gain: factor on the BatchNorm of each branch before the first step; 2 compensates for the
            gates' initial 1/2, 1 does not.
    """

    about = About(
        paper=PAPER,
        certain=CERTAIN,
        reconstructed=f"{START}; squeeze-and-excitation with r = {REDUCTION} and biases (at least "
        f"{MIN_HIDDEN} hidden channels)",
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


class SpatialGatedBackbone(GatedBackbone):
    """SA: every residual branch times sigmoid(7x7 conv [mean over channels; max over channels]).

    The mask has one number for each position. Arguments are as in `ChannelGatedBackbone`.
    """

    about = About(
        paper=PAPER,
        certain=CERTAIN,
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


class ChannelSpatialGatedBackbone(GatedBackbone):
    """CSCA: channel and spatial attention mixed in one gate.

    Args:
        backbone: any with residual units.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: see `HEAD_INITS`.
        gain: as in `ChannelGatedBackbone`; applied twice with order `sequential`, where a branch
            passes two gates.
        order: `joint` is one mask [B, C, h, w] = sigmoid(m_c + m_s). `sequential` is CBAM's order:
            the channel gate, then the spatial gate.
    """

    about = About(
        paper=PAPER,
        certain=CERTAIN,
        reconstructed=f"{START}; one mask sigmoid(m_c + m_s) of the scores of `ca` and `sa`: the "
        "paper's 'confusion' most likely means 'mixed'; CBAM's order is an option",
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


# The gate, the mask that is shown, and how many masks a branch passes.
ORDERS: dict[str, tuple[Callable[[int], nn.Module], str, int]] = {
    "joint": (JointGate, "scores.spatial_mask", 1),
    "sequential": (SequentialGate, "spatial.mask", 2),
}


def _deepest_gates(backbone: Backbone) -> dict[str, str]:
    """Return {stage: path of its last gate} of the last stages that have one, shallow to deep.

    There is thus one mask for each resolution.
    """
    order = backbone.chain.index
    gates: dict[str, str] = {}
    for end in backbone.residual_ends:
        stage = next(s for s in backbone.stages if order(s) >= order(end.rpartition(".")[0]))
        gates[stage] = end
    return dict(list(gates.items())[-MAX_MASKS:])
