"""The baseline: a backbone, average pool, one linear layer."""

from __future__ import annotations

from torch import Tensor

from finedge.bundle import View
from finedge.train.backbones import Backbone
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.models.base import About, FineGrained


class Plain(FineGrained):
    """The backbone alone: the baseline that every other model has to beat.

    Shapes: images float [B, 3, H, W] -> "logits" [B, num_classes].
    """

    about = About(paper="none (baseline)", certain="all", reconstructed="nothing")

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
    ) -> None:
        super().__init__(backbone, dropout=dropout, head_init=head_init)
        self.classifier = LinearHead(
            backbone.feature_channels, num_classes, dropout=dropout, head_init=head_init
        )
        self.taps = tuple(
            f"backbone.{block}" for block in dict.fromkeys((*backbone.stages, backbone.chain[-1]))
        )
        self.views = (View("evidence for the class", "cam", self.taps[-1]),)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, num_classes]}."""
        return {"logits": self.classifier(pooled(self.backbone(images)))}
