"""CNL, cross-layer non-local (Ye et al., ICIP 2020, arXiv 2005.09153).

Details are from the authors' published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn

from finedge.bundle import View
from finedge.errors import UsageError, nearest
from finedge.train.backbones import Backbone
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.layers.non_local import CrossLayerNonLocal, Layout
from finedge.train.layers.uniform import Attention
from finedge.train.models.base import ACTIVATED, About, FineGrained

Place = Literal["spatial", "stage"]


@dataclass(frozen=True)
class AttentionPlacement:
    """Where the attention sits.

    Attributes:
        query: the block whose output is the query.
        responses: the blocks whose outputs are keys and values.
        width: d, the channels of the attention.
    """

    query: str
    responses: tuple[str, ...]
    width: int


# ResNet-50 and -101 as published. ResNet-34 has ResNet-50's block counts. In ResNet-18 all four
# middle blocks are responses. d = C/8 as in the paper.
PLACEMENTS: dict[str, AttentionPlacement] = {
    "resnet18": AttentionPlacement(
        "layer4.0", ("layer2.0", "layer2.1", "layer3.0", "layer3.1"), 64
    ),
    "resnet34": AttentionPlacement(
        "layer4.1", ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"), 64
    ),
    "resnet50": AttentionPlacement(
        "layer4.1", ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"), 256
    ),
    "resnet101": AttentionPlacement(
        "layer4.1", ("layer2.1", "layer2.3", "layer3.5", "layer3.12", "layer3.19"), 256
    ),
    # Nothing follows the last stage here: as in the paper, the query is its last block but one.
    "efficientnet_lite0_s16": AttentionPlacement("blocks.4.1", ("blocks.1.1", "blocks.2.1"), 64),
}


def placement(backbone: Backbone, *, place: Place = "spatial") -> AttentionPlacement:
    """Return the placement in the table, or a default one for any other backbone.

    The default: the two stages before the query are the responses, d = 64. With place `spatial` the
    query is the block before the last one that mixes positions, as in the paper (`blocks.5.3` of
    EfficientNet-Lite0). With `stage`, and where no block of the last stage is before that, it is
    the last stage, where only 1x1 convolutions may follow. Where the last stage ends the backbone,
    it is the last block but one, which may end the stage before.
    """
    last = backbone.stages[-1] if backbone.stages[-1] != backbone.chain[-1] else backbone.chain[-2]
    if place == "spatial":
        last = _before_last_spatial(backbone) or last
    order = backbone.chain.index
    earlier = tuple(stage for stage in backbone.stages[:-1] if order(stage) < order(last))
    return PLACEMENTS.get(backbone.name) or AttentionPlacement(last, earlier[-2:], 64)


def _before_last_spatial(backbone: Backbone) -> str:
    """Return the block before the last one with a kernel above 1x1, if the last stage has it."""
    order = backbone.chain.index
    spatial = [name for name in backbone.chain if _is_spatial(backbone.get_submodule(name))]
    query = order(spatial[-1]) - 1 if spatial else 0
    return backbone.chain[query] if query > order(backbone.stages[-2]) else ""


def _is_spatial(block: nn.Module) -> bool:
    convolutions = (m for m in block.modules() if isinstance(m, nn.Conv2d))
    return any(max(m.kernel_size) > 1 for m in convolutions)


class CrossLayer(FineGrained):
    """A backbone whose late features attend to earlier layers and add what they gather.

    Shapes: images float [B, 3, H, W] -> "logits" [B, num_classes].

    Args:
        backbone: any; `placement` says where the module sits.
        num_classes: number of labels.
        dropout: before the linear layer, 0..1.
        head_init: `kaiming` is the paper's (see `HEAD_INITS`).
        joint: one softmax over the positions of all responses (the paper's figure) instead of one
            for each response (its code).
        pooled_keys: keys and values come from max pooled (2 x 2) responses: attention then costs
            a quarter. The paper does not pool; its source, arXiv 1711.07971, does.
        query: block of the query; empty is the placement's. The paper takes a late one, where a map
            has few positions: the cost grows with them.
        responses: blocks of the responses, all before `query`; empty is the placement's.
        place: where the placement's query is, see `placement`. With `spatial`, responses that do
            not come after a ReLU also pass a BatchNorm. `stage` is the placement of versions
            before this option, without a BatchNorm.
        layout: `published` scrambles positions and channels as the authors' code does (see
            `CrossLayerNonLocal`). To find out which part of their gain is due to attention.
        attention: `uniform` is the control without attention: the mean of the values.
    """

    about = About(
        paper="CNL, Ye et al., ICIP 2020, arXiv 2005.09153",
        certain="on ResNet-50 and ResNet-101: placement, widths, initial values, one softmax for "
        "each response (from the authors' code)",
        reconstructed="the placement on every other backbone, and the BatchNorm on responses that "
        "do not come after a ReLU. The answer at the position of its query is the paper's equation "
        "and not the authors' code: that lacks a transpose and scrambles positions and channels, "
        "so the published numbers are those of layout `published`",
    )
    former: ClassVar[Mapping[str, Any]] = {"place": "stage"}

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
        joint: bool = False,
        pooled_keys: bool = False,
        query: str = "",
        responses: Sequence[str] = (),
        place: Place = "spatial",
        layout: Layout = "aligned",
        attention: Attention = "softmax",
    ) -> None:
        super().__init__(
            backbone,
            dropout=dropout,
            head_init=head_init,
            joint=joint,
            pooled_keys=pooled_keys,
            query=query,
            responses=list(responses),
            place=place,
            layout=layout,
            attention=attention,
        )
        if place not in get_args(Place):
            expected = f"one of {', '.join(get_args(Place))}"
            raise UsageError(f"unknown place '{place}'", expected=expected)
        usual = placement(backbone, place=place)
        self.place = AttentionPlacement(
            query or usual.query, tuple(responses) or usual.responses, usual.width
        )
        _check(self.place, backbone)
        self.cross_layer = CrossLayerNonLocal(
            backbone.channels(self.place.query),
            responses=[backbone.channels(block) for block in self.place.responses],
            width=self.place.width,
            joint=joint,
            pooled_keys=pooled_keys,
            layout=layout,
            norms=place == "spatial" and not backbone.name.startswith(ACTIVATED),
            attention=attention,
        )
        self.classifier = LinearHead(
            backbone.feature_channels, num_classes, dropout=dropout, head_init=head_init
        )
        attended = [f"cross_layer.attend.{index}" for index in range(len(self.cross_layer.attend))]
        before = [f"backbone.{block}" for block in (*self.place.responses, self.place.query)]
        last = f"backbone.{backbone.chain[-1]}"
        self.taps = tuple(dict.fromkeys((*before, *attended, "cross_layer", last)))
        # The joint softmax runs over several grids at once: no single picture can show it. A
        # uniform attention has nothing to show.
        looks = (
            ()
            if joint or attention == "uniform"
            else tuple(
                View(f"looks at {block}", "attention", tap)
                for block, tap in zip(self.place.responses, attended, strict=True)
            )
        )
        self.views = (*looks, View("evidence for the class", "cam", last))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, num_classes]}."""
        query, tapped = self.backbone.run(images, until=self.place.query, taps=self.place.responses)
        query = self.cross_layer(query, [tapped[block] for block in self.place.responses])
        last, _ = self.backbone.run(query, after=self.place.query)
        return {"logits": self.classifier(pooled(last))}


def _check(place: AttentionPlacement, backbone: Backbone) -> None:
    for block in (place.query, *place.responses):
        if block not in backbone.chain:
            raise UsageError(
                f"{backbone.name} has no block '{block}'", expected=nearest(block, backbone.chain)
            )
    order = [backbone.chain.index(block) for block in (*place.responses, place.query)]
    if order != sorted(set(order)):
        raise UsageError(
            f"responses {', '.join(place.responses)} for query {place.query}",
            expected="blocks in running order, all before the query",
        )
    if place.query == backbone.chain[-1]:
        raise UsageError(
            f"query {place.query} is the last block of {backbone.name}",
            expected="a block with another one after it",
        )
