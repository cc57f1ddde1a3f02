"""Statistics of the earlier maps beside the last map: the control for models across layers.

No paper, no attention. A model whose attention reads earlier layers has to beat this one: else the
gain is that the classifier sees those layers, and not where the attention looks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finedge.bundle import View
from finedge.train.backbones import Backbone
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.models.base import About, FineGrained

EPSILON = 1e-5  # added to the variance: the root has no gradient at 0


class Levels(FineGrained):
    """A backbone; one linear layer on the mean of its last map, and mean and deviation of earlier.

    The statistics of the earlier maps pass a BatchNorm without weights, because the maps differ in
    size: on EfficientNet-Lite0 their deviations over Grocery photos are 8.6, 7.1 and 3.0. The mean
    of the last map is what `plain` classifies, unchanged.

    Shapes: images float [B, 3, H, W] -> "logits" [B, num_classes].

    Args:
        backbone: any; the earlier maps are those of its third and second last stage.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: see `HEAD_INITS`.
    """

    about = About(
        paper="none (control: earlier layers without attention)",
        certain="all",
        reconstructed="nothing",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
    ) -> None:
        super().__init__(backbone, dropout=dropout, head_init=head_init)
        self.early = backbone.stages[-3:-1]
        statistics = 2 * sum(backbone.channels(stage) for stage in self.early)
        self.norm = nn.BatchNorm1d(statistics, affine=False)
        self.classifier = LinearHead(
            backbone.feature_channels + statistics,
            num_classes,
            dropout=dropout,
            head_init=head_init,
        )
        last = backbone.chain[-1]
        self.taps = tuple(f"backbone.{block}" for block in (*self.early, last))
        self.views = (View("evidence for the class, last map", "cam", self.taps[-1]),)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, num_classes]}."""
        last, tapped = self.backbone.run(images, taps=self.early)
        early = torch.cat([moments(tapped[stage]) for stage in self.early], dim=1)
        return {"logits": self.classifier(torch.cat([pooled(last), self.norm(early)], dim=1))}


def moments(features: Tensor) -> Tensor:
    """Return mean and standard deviation over positions: [B, C, h, w] -> [B, 2 C]."""
    mean = features.mean(dim=(2, 3), keepdim=True)
    variance = (features - mean).square().mean(dim=(2, 3))
    return torch.cat([mean.flatten(1), (variance + EPSILON).sqrt()], dim=1)
