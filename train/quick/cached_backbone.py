"""A frozen backbone that answers with maps computed before, and which maps a model needs.

A model asks its backbone for maps through `Backbone.run`. Whatever depends on the images alone can
be cached. What depends on a trained layer (CNL changes its query map) is computed in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from finedge.errors import UsageError
from finedge.train.backbones import Backbone
from finedge.train.models import FineGrained


class CachedBackbone(Backbone):
    """The same blocks under the same names; the frozen ones stay in evaluation mode.

    Their BatchNorm thus uses its stored statistics. With `maps` it returns those of frozen blocks,
    and the other blocks run on the last one of them. Without `maps` it runs on images as usual.

    Args:
        backbone: its blocks are shared, not copied.
        stages: the stem and so many stages are frozen; 0 freezes all blocks.

    Attributes:
        frozen: the last frozen block.
        maps: {frozen block: its output [B, C, h, w]} of the images of the next forward, or None.
    """

    def __init__(self, backbone: Backbone, *, stages: int = 0) -> None:
        super().__init__(
            backbone.name,
            net=backbone,
            chain=backbone.chain,
            stages=backbone.stages,
            residual_ends=backbone.residual_ends,
        )
        self.maps: Mapping[str, Tensor] | None = None
        self.training = backbone.training
        self.frozen = last_frozen(backbone, stages=stages)
        self._freeze_until(self.frozen)

    def train(self, mode: bool = True) -> CachedBackbone:
        """Set the mode of the blocks that are trained; without one all stays in evaluation mode."""
        super().train(mode and self.frozen != self.chain[-1])
        return self

    def frozen_blocks(self) -> tuple[str, ...]:
        """Return the frozen blocks in running order."""
        return self.chain[: self._index(self.frozen) + 1]

    def run(
        self,
        x: Tensor,
        *,
        after: str | None = None,
        until: str | None = None,
        taps: Collection[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `Backbone.run` returns.

        The maps are used from the images on, and after a map that the model did not change.
        """
        maps = self.maps
        if maps is None or (after is not None and x is not maps.get(after)):
            return super().run(x, after=after, until=until, taps=taps)
        blocks = set(self.frozen_blocks())
        cached = {block: maps[block] for block in taps if block in blocks}
        if (until or self.chain[-1]) in blocks:
            return maps[until or self.chain[-1]], cached
        rest = [block for block in taps if block not in blocks]
        last, live = super().run(maps[self.frozen], after=self.frozen, until=until, taps=rest)
        return last, cached | live


def last_frozen(backbone: Backbone, *, stages: int) -> str:
    """Return the last block of the first `stages` stages, or of the backbone for 0."""
    return backbone.stages[stages - 1] if stages else backbone.chain[-1]


def cached_backbone(model: FineGrained) -> CachedBackbone:
    """Return the `CachedBackbone` that was put into a model."""
    backbone = model.backbone
    assert isinstance(backbone, CachedBackbone)
    return backbone


def map_shapes(
    model: FineGrained, *, size: int, stages: int = 0
) -> dict[str, tuple[int, int, int]]:
    """Return {block: (C, h, w)} of the maps that a model needs, in running order.

    The model runs once on shapes without data (the meta device).

    Args:
        model: its backbone is not changed.
        size: side of the network's input in pixels.
        stages: that are frozen, as in `CachedBackbone`.

    Raises:
        UsageError: the model has new layers inside the backbone.
    """
    require_layers_after_backbone(model)
    shapes = copy.deepcopy(model).to("meta").eval()
    recorder = _Recorder(shapes.backbone, frozen=last_frozen(model.backbone, stages=stages))
    shapes.backbone = recorder
    shapes(torch.empty(1, 3, size, size, device="meta"))
    return {
        block: (map_.shape[1], map_.shape[2], map_.shape[3])
        for block, map_ in recorder.outputs.items()
        if block in recorder.needed
    }


def require_layers_after_backbone(model: FineGrained) -> None:
    """Refuse a model whose new layers sit inside the backbone: its maps change in every step.

    Raises:
        UsageError: there is such a layer.
    """
    inside = {id(parameter) for parameter in model.backbone.parameters()}
    if any(id(parameter) in inside for parameter in model.new_parameters()):
        raise UsageError(
            f"--quick with {type(model).__name__}: its new layers sit inside the backbone",
            expected="a model whose layers come after the backbone's maps, as plain, cnl or cs. "
            "Maps of a backbone that is trained cannot be cached",
            fix="train it without --quick",
        )


class _Recorder(Backbone):
    """Notes which frozen blocks' outputs are asked for while they depend on the images alone."""

    def __init__(self, backbone: Backbone, *, frozen: str) -> None:
        super().__init__(backbone.name, net=backbone, chain=backbone.chain, stages=backbone.stages)
        self.frozen = self.chain[: self._index(frozen) + 1]
        self.outputs: dict[str, Tensor] = {}
        self.needed: set[str] = set()

    def run(
        self,
        x: Tensor,
        *,
        after: str | None = None,
        until: str | None = None,
        taps: Collection[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `Backbone.run` returns."""
        if after is not None and x is not self.outputs.get(after):
            return super().run(x, after=after, until=until, taps=taps)
        last, outputs = super().run(x, after=after, until=until, taps=self.chain)
        self.outputs |= {block: map_ for block, map_ in outputs.items() if block in self.frozen}
        # A block that is trained runs on the last frozen map.
        asked = {until or self.chain[-1], *taps}
        self.needed |= {block if block in self.frozen else self.frozen[-1] for block in asked}
        return last, {block: outputs[block] for block in taps}
