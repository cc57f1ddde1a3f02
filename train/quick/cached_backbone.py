"""A frozen backbone that answers with maps computed before, and which maps a model needs.

A model asks its backbone for maps through `Backbone.run`. Whatever depends on the images alone can
be cached. What depends on a trained layer (CNL changes its query map) is computed in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from finedge.errors import UsageError
from finedge.train.backbones import Backbone
from finedge.train.models import FineGrained


class CachedBackbone(Backbone):
    """The same blocks under the same names, frozen and always in evaluation mode.

    BatchNorm thus uses its stored statistics. With `maps` it returns those instead of running on
    images; without them it runs as usual.

    Args:
        backbone: its blocks are shared, not copied.

    Attributes:
        maps: {block: its output [B, C, h, w]} of the images of the next forward, or None.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(
            backbone.name,
            net=backbone,
            chain=backbone.chain,
            stages=backbone.stages,
            residual_ends=backbone.residual_ends,
        )
        self.maps: Mapping[str, Tensor] | None = None
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> CachedBackbone:
        """Stay in evaluation mode, whatever `mode` is."""
        nn.Module.train(self, False)
        return self

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
        return maps[until or self.chain[-1]], {block: maps[block] for block in taps}


def cached_backbone(model: FineGrained) -> CachedBackbone:
    """Return the `CachedBackbone` that was put into a model."""
    backbone = model.backbone
    assert isinstance(backbone, CachedBackbone)
    return backbone


def map_shapes(model: FineGrained, *, size: int) -> dict[str, tuple[int, int, int]]:
    """Return {block: (C, h, w)} of the maps that a model needs, in running order.

    The model runs once on shapes without data (the meta device).

    Args:
        model: its backbone is not changed.
        size: side of the network's input in pixels.

    Raises:
        UsageError: the model has new layers inside the backbone.
    """
    require_layers_after_backbone(model)
    shapes = copy.deepcopy(model).to("meta").eval()
    recorder = _Recorder(shapes.backbone)
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
    """Notes which blocks' outputs are asked for while they depend on the images alone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone.name, net=backbone, chain=backbone.chain, stages=backbone.stages)
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
        self.outputs |= outputs
        self.needed |= {until or self.chain[-1], *taps}
        return last, {block: outputs[block] for block in taps}
