"""CS, cross-layer channel and spatial self-attention (Chen, Yu, Liang, ICCECE 2023).

Only the abstract could be read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finedge.bundle import View
from finedge.errors import UsageError
from finedge.train.backbones import Backbone
from finedge.train.layers.cross_layer_channel import CrossLayerSelf, HighLevel
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.layers.uniform import Attention
from finedge.train.models.base import About, FineGrained

# d: CNL's width on the paper's backbone and on ResNet-50; a quarter of it elsewhere, as in CNL.
WIDTHS: dict[str, int] = {"resnet50": 256, "resnet101": 256}
EDGE_WIDTH = 64
MAX_WIDTH = 4096  # the channels of the widest backbone, with room to spare


class CrossLayerSelfAttention(FineGrained):
    """A backbone whose last map refines the two stages before it; the classifier sees all three.

    The classifier sees [GAP(C5); GAP(F_C3); GAP(F_C4)]. At the start both attentions are multiplied
    by exactly 0. F_C3 and F_C4 then depend on their own stages only, and the classifier sees of C5
    what `plain` sees.

    Shapes: images float [B, 3, H, W] -> "logits" [B, num_classes].

    Args:
        backbone: any; the low maps are its third and second last stage, the high map is its last
            feature map.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: see `HEAD_INITS`.
        width: d, the channels of the attention; 0 is 256 on ResNet-50 and ResNet-101, 64 elsewhere.
        attention: `uniform` is the control without attention, in channels and in space.
    """

    about = About(
        paper="CS, Chen, Yu, Liang, ICCECE 2023 (abstract only)",
        certain="ResNet-101; cross-layer channel and spatial self-attention, both loaded into the "
        "low level; low-level refinements are fused first, then with the high level",
        reconstructed="every equation: which layer is the query and which the keys, two low "
        "stages, the widths, gammas that start at 0, a fusion by 1x1 convolution and one "
        "classifier on the averages of all three maps, biases, initial values (the text states "
        "none of them)",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
        width: int = 0,
        attention: Attention = "softmax",
    ) -> None:
        super().__init__(
            backbone, dropout=dropout, head_init=head_init, width=width, attention=attention
        )
        if not 0 <= width <= MAX_WIDTH:
            raise UsageError(
                f"width {width}",
                expected=f"0 (by the backbone), or up to {MAX_WIDTH}",
            )
        width = width or WIDTHS.get(backbone.name, EDGE_WIDTH)
        self.low = backbone.stages[-3:-1]
        self.high = HighLevel(backbone.feature_channels, width=width, attention=attention)
        self.refine = nn.ModuleList(
            CrossLayerSelf(backbone.channels(stage), width=width, attention=attention)
            for stage in self.low
        )
        self.classifier = LinearHead(
            backbone.feature_channels + len(self.low) * width,
            num_classes,
            dropout=dropout,
            head_init=head_init,
        )
        last = f"backbone.{backbone.chain[-1]}"
        refined = [f"refine.{index}" for index in range(len(self.low))]
        self.taps = (
            *(f"backbone.{stage}" for stage in self.low),
            last,
            *(f"{r}{part}" for r in refined for part in (".channel", ".spatial", "")),
        )
        looks = (
            View(f"{stage} looks at the last map", "attention", f"{r}.spatial")
            for stage, r in zip(self.low, refined, strict=True)
            if attention == "softmax"
        )
        self.views = (*looks, View("evidence for the class, last map", "cam", last))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, num_classes]}."""
        last, tapped = self.backbone.run(images, taps=self.low)
        high = self.high(last)
        refined = [
            refine(tapped[stage], high) for refine, stage in zip(self.refine, self.low, strict=True)
        ]
        return {"logits": self.classifier(torch.cat([pooled(x) for x in (last, *refined)], dim=1))}
