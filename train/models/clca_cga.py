"""Paper 2: cross-layer collaborative attention and channel group attention (He Zhixiang et al., 2024; only its abstract could be read)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finedge.bundle import View
from finedge.errors import UsageError, nearest
from finedge.spec import Output
from finedge.train.backbones import Backbone
from finedge.train.layers.collaborative import ChannelGroupAttention, CoAttention
from finedge.train.layers.head import LinearHead
from finedge.train.layers.pooling import average_to, mean_of_largest
from finedge.train.models.base import About, FineGrained

HIDDEN = 512
BRANCHES = 3
LOSS_WEIGHTS = (
    2.0,
    2.0,
    2.0,
    1.0,
)  # FBSD's: the branches from shallow to deep, then all of them concatenated
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "top5": lambda x: mean_of_largest(x, count=5),
    "max": lambda x: x.amax(dim=(2, 3)),
}


@dataclass(frozen=True)
class Width:
    """P, the channels of a branch; whether it has the 3x3 convolution; whether the first branch is averaged to the grid of the second."""

    channels: int
    spatial: bool
    shrink: bool


WIDTHS: dict[str, Width] = {
    "edge": Width(256, spatial=False, shrink=True),
    "full": Width(1024, spatial=True, shrink=False),
}


class CollaborativeAttention(FineGrained):
    """Three branches from the last three stages that attend to each other in pairs; four heads whose logits are summed.

    The last map first passes through channel group attention. At the start all seven gammas are 0: the channel group attention and the
    co-attention are exactly the identity, and what is left is the three branches and their heads. It never is the plain network, whose
    linear layer on the averaged last map has no place here. Not taken from FBSD's code: its boosting and suppression of strips, which
    is its own idea, and its BatchNorm momentum of 0.01 in the branches (here PyTorch's 0.1).

    Args:
        backbone: any; the branches are its third and second last stage and its last feature map.
        num_classes: number of labels.
        dropout: before the last linear layer of each head, 0..1; FBSD has none.
        head_init: of those layers, see `HEAD_INITS`.
        width: `edge`: branches of one 1x1 convolution to 256 channels, the first averaged to the grid of the second before it.
            `full`: 1x1 to 512 and 3x3 to 1024 channels on three grids, as FBSD; on ResNet-50 at 448 50.5 GMAC
            instead of 17.8.
        pool: in front of a head: `top5`, the mean of the 5 largest values a channel (FBSD), or `max` (PMG, CMAL). The five are a
            TopK, which stays float in INT8 and which TensorRT for RTX parses and builds; on one CPU thread they
            took about 0.4 ms more than `max` at 224.
        scale: factor on the cosines before their softmax.
    """

    about = About(
        paper="cross-layer collaborative attention and channel group attention, He Zhixiang et al., 2024, 33(3): 126-133 (abstract only)",
        certain="ResNet-50; its last three stages are three branches; each attends to each other one, fused interactively; channel group attention on the last",
        reconstructed="branches, pairwise exchange, heads and loss from FBSD (arXiv 2103.02782), which has the same three branches, with the sign of the "
        "exchange positive and learnt factors from 0; channel group attention as channel self-attention in up to 16 groups; width `edge` is ours",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.0,
        head_init: str = "small",
        width: str = "edge",
        pool: str = "top5",
        scale: float = 1.0,
    ) -> None:
        super().__init__(
            backbone, dropout=dropout, head_init=head_init, width=width, pool=pool, scale=scale
        )
        self.size, self.pool = (
            WIDTHS[_known(width, WIDTHS, what="width")],
            POOLS[_known(pool, POOLS, what="pool")],
        )
        self.early = backbone.stages[-3:-1]
        self.group = ChannelGroupAttention(backbone.feature_channels)
        channels = (*(backbone.channels(stage) for stage in self.early), backbone.feature_channels)
        self.branch = nn.ModuleList(_branch(c, size=self.size) for c in channels)
        self.exchange = CoAttention(BRANCHES, scale=scale)
        inputs = (*(self.size.channels for _ in range(BRANCHES)), BRANCHES * self.size.channels)
        self.heads = nn.ModuleList(
            _Head(n, num_classes, dropout=dropout, head_init=head_init) for n in inputs
        )
        self.outputs = (
            Output(),
            *(Output(f"local_{index}", role="local") for index in range(len(self.heads))),
        )
        self.taps, self.views = self._look(backbone)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": the sum of the four heads, "local_0" to "local_3": the heads, in the order of `LOSS_WEIGHTS`}, each [B, num_classes]."""
        last, tapped = self.backbone.run(images, taps=self.early)
        first, second = (tapped[stage] for stage in self.early)
        if self.size.shrink:
            first = average_to(first, grid=(second.shape[2], second.shape[3]))
        maps = [
            branch(x)
            for branch, x in zip(self.branch, (first, second, self.group(last)), strict=True)
        ]
        vectors = [self.pool(x) for x in self.exchange(maps)]
        local = [
            head(x)
            for head, x in zip(self.heads, (*vectors, torch.cat(vectors, dim=1)), strict=True)
        ]
        # One sum, not a chain of Adds: the CPU form of INT8 quantizes Adds, and 256 levels of logits would tie.
        return {
            "logits": torch.stack(local).sum(dim=0),
            **{f"local_{index}": x for index, x in enumerate(local)},
        }

    def loss(
        self, outputs: Mapping[str, Tensor], target: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Return `LOSS_WEIGHTS` times the mean cross-entropy of each head, a float32 scalar; targets as in `FineGrained.loss`."""
        terms = [
            F.cross_entropy(outputs[f"local_{i}"].float(), target, label_smoothing=label_smoothing)
            for i in range(len(LOSS_WEIGHTS))
        ]
        return sum(
            (weight * term for weight, term in zip(LOSS_WEIGHTS, terms, strict=True)),
            start=torch.zeros_like(terms[0]),
        )

    def _look(self, backbone: Backbone) -> tuple[tuple[str, ...], tuple[View, ...]]:
        named = (*self.early, backbone.chain[-1])
        taps = [f"exchange.attend.{index}" for index in range(len(self.exchange.directions))]
        views = (
            View(f"{named[i]} looks at {named[j]}", "attention", tap)
            for tap, (i, j) in zip(taps, self.exchange.directions, strict=True)
        )
        branches = [f"branch.{index}" for index in range(BRANCHES)]
        return (*(f"backbone.{block}" for block in named), "group", *branches, *taps), tuple(views)


class _Head(nn.Sequential):
    """BatchNorm, linear to 512, BatchNorm, ELU, linear to the classes: the head of PMG, CMAL and FBSD."""

    def __init__(self, features: int, num_classes: int, *, dropout: float, head_init: str) -> None:
        last = LinearHead(HIDDEN, num_classes, dropout=dropout, head_init=head_init)
        super().__init__(
            nn.BatchNorm1d(features),
            nn.Linear(features, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.ELU(),
            last,
        )


def _branch(channels: int, *, size: Width) -> nn.Sequential:
    """Return 1x1, BatchNorm, ReLU; then 3x3, BatchNorm, ReLU where the width has it."""
    inner = HIDDEN if size.spatial else size.channels
    layers: list[nn.Module] = [
        nn.Conv2d(channels, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
    ]
    if size.spatial:
        layers += [
            nn.Conv2d(inner, size.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(size.channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def _known(value: str, table: Mapping[str, object], *, what: str) -> str:
    if value not in table:
        raise UsageError(f"unknown {what} '{value}'", expected=nearest(value, table))
    return value
