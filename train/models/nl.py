"""NL, non-local blocks within their own layers (Wang et al., CVPR 2018, arXiv 1711.07971).

The paper of CNL (arXiv 2005.09153) compares with it under the name "5NL".
"""

from __future__ import annotations

from torch import Tensor, nn

from finedge.bundle import View
from finedge.train.backbones import Backbone
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.layers.non_local import CrossLayerNonLocal
from finedge.train.layers.uniform import Attention
from finedge.train.models.base import About, FineGrained
from finedge.train.models.cnl import placement


class NonLocal(FineGrained):
    """A backbone in which each response layer of CNL attends to itself.

    Shapes: images float [B, 3, H, W] -> "logits" [B, num_classes].

    Args:
        backbone: any; the blocks are the responses of `finedge.train.models.cnl.placement`.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: see `HEAD_INITS`.
        pooled_keys: keys and values come from the max pooled (2 x 2) map, the sub-sampling of
            arXiv 1711.07971.
        attention: `uniform` is the control without attention: the mean of the values.
    """

    about = About(
        paper="5NL of CNL, Ye et al., ICIP 2020, arXiv 2005.09153; block of arXiv 1711.07971",
        certain="the name 5NL: the code of CNL's authors has no non-local block of its own",
        reconstructed="one block after each of CNL's five response layers, which 5NL most likely "
        "means; embedded Gaussian with softmax and the width, half the channels, as in arXiv "
        "1711.07971; BatchNorm that starts at zero, as in cgnl-network, the parent of CNL's code; "
        "no sub-sampling of the keys by default; the placement outside ResNet-50 and ResNet-101",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
        pooled_keys: bool = False,
        attention: Attention = "softmax",
    ) -> None:
        super().__init__(
            backbone,
            dropout=dropout,
            head_init=head_init,
            pooled_keys=pooled_keys,
            attention=attention,
        )
        self.places = placement(backbone).responses
        self.non_local = nn.ModuleList(
            _block(backbone.channels(place), pooled_keys=pooled_keys, attention=attention)
            for place in self.places
        )
        self.classifier = LinearHead(
            backbone.feature_channels, num_classes, dropout=dropout, head_init=head_init
        )
        self.taps = (
            *(
                tap
                for i, _ in enumerate(self.places)
                for tap in (f"non_local.{i}.attend.0", f"non_local.{i}")
            ),
            f"backbone.{backbone.chain[-1]}",
        )
        looks = (
            View(f"looks within {place}", "attention", f"non_local.{i}.attend.0")
            for i, place in enumerate(self.places if attention == "softmax" else ())
        )
        self.views = (*looks, View("evidence for the class", "cam", self.taps[-1]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, num_classes]}."""
        x, after = images, None
        for place, block in zip(self.places, self.non_local, strict=True):
            x, _ = self.backbone.run(x, after=after, until=place)
            x, after = block(x, [x]), place
        return {"logits": self.classifier(pooled(self.backbone.run(x, after=after)[0]))}


def _block(channels: int, *, pooled_keys: bool, attention: Attention) -> CrossLayerNonLocal:
    return CrossLayerNonLocal(
        channels,
        responses=[channels],
        width=channels // 2,
        pooled_keys=pooled_keys,
        attention=attention,
    )
