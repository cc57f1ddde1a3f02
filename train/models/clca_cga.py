"""Cross-layer collaborative attention and channel group attention.

He Zhixiang et al., 2024, 33(3): 126-133. Only the abstract could be read.
"""

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
from finedge.train.layers.uniform import Attention
from finedge.train.models.base import About, FineGrained

HIDDEN = 512
BRANCHES = 3
# As in FBSD: the branches from shallow to deep, then all of them concatenated.
LOSS_WEIGHTS = (2.0, 2.0, 2.0, 1.0)
# Factor on the loss. The sum is FBSD's; its gradient at the backbone was 3.9 times that of `plain`
# (Grocery Store, five batches at the start).
LOSSES = {"sum": 1.0, "mean": 1 / sum(LOSS_WEIGHTS)}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "top5": lambda x: mean_of_largest(x, count=5),
    "max": lambda x: x.amax(dim=(2, 3)),
}


@dataclass(frozen=True)
class Width:
    """The size of the branches.

    Attributes:
        channels: P, of a branch.
        spatial: whether a branch has the 3x3 convolution.
        shrink: whether the first branch is averaged to the grid of the second.
    """

    channels: int
    spatial: bool
    shrink: bool


WIDTHS: dict[str, Width] = {
    "edge": Width(256, spatial=False, shrink=True),
    "full": Width(1024, spatial=True, shrink=False),
}


class CollaborativeAttention(FineGrained):
    """Three branches from the last three stages attend to each other in pairs; four heads vote.

    The last map first passes through channel group attention. The logits of the heads are summed.
    All seven gammas start at 0: channel group attention and co-attention are then exactly the
    identity, and the three branches with their heads remain. The model never is the plain network,
    because the linear layer on the averaged last map has no place here.

    Two parts of FBSD's code are left out. The boosting and suppression of strips is its own idea.
    Its BatchNorm momentum in the branches is 0.01; here it is PyTorch's 0.1.

    Shapes: images float [B, 3, H, W] -> "logits" and "local_0" to "local_3" [B, num_classes].

    Args:
        backbone: any; the branches are its third and second last stage and its last feature map.
        num_classes: number of labels.
        dropout: before the last linear layer of each head, 0..1; FBSD has none.
        head_init: of those layers, see `HEAD_INITS`.
        width: `edge` has branches of one 1x1 convolution to 256 channels; the first map is averaged
            to the grid of the second before it. `full` has a 1x1 convolution to 512 and a 3x3 to
            1024 channels on three grids, as FBSD: 50.5 GMAC on ResNet-50 at 448, instead of 17.8.
        pool: before a head: `top5`, the mean of the 5 largest values of a channel (FBSD), or `max`
            (PMG, CMAL). The five are a TopK node, which stays float in INT8 and which TensorRT for
            RTX parses and builds. On one CPU thread it took about 0.4 ms more than `max` at 224.
        scale: factor on the cosines before their softmax; at 1 the softmax is flat (`CoAttention`).
        learn_scale: learn that factor, from `scale` on.
        loss_scale: `sum` of the weighted terms as FBSD, or `mean`, which divides it by 7: the
            gradient then has the size of one cross-entropy, as in other models.
        attention: `uniform` is the control without attention, between branches and in the groups.
    """

    about = About(
        paper="cross-layer collaborative attention and channel group attention, "
        "He Zhixiang et al., 2024, 33(3): 126-133 (abstract only)",
        certain="ResNet-50; its last three stages are three branches; each attends to each other "
        "one, fused interactively; channel group attention on the last",
        reconstructed="branches, pairwise exchange, heads and loss from FBSD (arXiv 2103.02782), "
        "which has the same three branches; the sign of the exchange is positive and its factors "
        "are learnt from 0; the cosines are scaled by 32, because FBSD's own scale of 1 attends "
        "to nothing; channel group attention as channel self-attention in up to 16 groups; "
        "width `edge` is not in the paper",
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
        scale: float = 32.0,
        learn_scale: bool = False,
        loss_scale: str = "sum",
        attention: Attention = "softmax",
    ) -> None:
        super().__init__(
            backbone,
            dropout=dropout,
            head_init=head_init,
            width=width,
            pool=pool,
            scale=scale,
            learn_scale=learn_scale,
            loss_scale=loss_scale,
            attention=attention,
        )
        self.loss_factor = LOSSES[_require_key(loss_scale, LOSSES, option="loss_scale")]
        self.size = WIDTHS[_require_key(width, WIDTHS, option="width")]
        self.pool = POOLS[_require_key(pool, POOLS, option="pool")]
        self.early = backbone.stages[-3:-1]
        self.group = ChannelGroupAttention(backbone.feature_channels, attention=attention)
        channels = (*(backbone.channels(stage) for stage in self.early), backbone.feature_channels)
        self.branch = nn.ModuleList(_branch(c, size=self.size) for c in channels)
        self.exchange = CoAttention(
            BRANCHES, scale=scale, learn_scale=learn_scale, attention=attention
        )
        inputs = (*(self.size.channels for _ in range(BRANCHES)), BRANCHES * self.size.channels)
        self.heads = nn.ModuleList(
            _Head(n, num_classes, dropout=dropout, head_init=head_init) for n in inputs
        )
        self.outputs = (
            Output(),
            *(Output(f"local_{index}", role="local") for index in range(len(self.heads))),
        )
        self.taps, views = self._taps_and_views(backbone)
        self.views = views if attention == "softmax" else ()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": sum of the four heads, "local_0" to "local_3": the heads}.

        Each is [B, num_classes]; the heads are in the order of `LOSS_WEIGHTS`.
        """
        last, tapped = self.backbone.run(images, taps=self.early)
        first, second = (tapped[stage] for stage in self.early)
        if self.size.shrink:
            first = average_to(first, grid=(second.shape[2], second.shape[3]))
        stages = (first, second, self.group(last))
        maps = [branch(x) for branch, x in zip(self.branch, stages, strict=True)]
        vectors = [self.pool(x) for x in self.exchange(maps)]
        inputs = (*vectors, torch.cat(vectors, dim=1))
        local = [head(x) for head, x in zip(self.heads, inputs, strict=True)]
        # One sum, not a chain of Adds: INT8 for the CPU quantizes Adds, and logits of 256 levels
        # would tie.
        return {
            "logits": torch.stack(local).sum(dim=0),
            **{f"local_{index}": x for index, x in enumerate(local)},
        }

    def loss(
        self, outputs: Mapping[str, Tensor], target: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Return the sum of `LOSS_WEIGHTS` times each head's mean cross-entropy: a float32 scalar.

        With loss_scale `mean` it is divided by the sum of the weights.

        Targets are as in `FineGrained.loss`.
        """
        terms = [
            F.cross_entropy(outputs[f"local_{i}"].float(), target, label_smoothing=label_smoothing)
            for i in range(len(LOSS_WEIGHTS))
        ]
        return self.loss_factor * sum(
            (weight * term for weight, term in zip(LOSS_WEIGHTS, terms, strict=True)),
            start=torch.zeros_like(terms[0]),
        )

    def _taps_and_views(self, backbone: Backbone) -> tuple[tuple[str, ...], tuple[View, ...]]:
        stages = (*self.early, backbone.chain[-1])
        taps = [f"exchange.attend.{index}" for index in range(len(self.exchange.directions))]
        views = (
            View(f"{stages[i]} looks at {stages[j]}", "attention", tap)
            for tap, (i, j) in zip(taps, self.exchange.directions, strict=True)
        )
        branches = [f"branch.{index}" for index in range(BRANCHES)]
        return (*(f"backbone.{block}" for block in stages), "group", *branches, *taps), tuple(views)


class _Head(nn.Sequential):
    """BatchNorm, linear to 512, BatchNorm, ELU, linear to the classes, as PMG, CMAL and FBSD."""

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


def _require_key(value: str, table: Mapping[str, object], *, option: str) -> str:
    if value not in table:
        raise UsageError(f"unknown {option} '{value}'", expected=nearest(value, table))
    return value
