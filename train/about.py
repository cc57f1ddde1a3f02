"""`finedge models`: what there is to train, where it comes from, and what it costs, counted on the spot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from finedge.train.models import FineGrained

CLASSES = 200
SIZES = (224, 448)
BACKBONES_SHOWN = ("resnet50", "efficientnet_lite0")


def models(*, backbone: tyro.conf.UseAppendAction[tuple[str, ...]] = ()) -> dict[str, Any]:
    """List the models with their papers and costs, the backbones and the recipes.

    Args:
        backbone: count the costs on this one; can be given several times. Default: resnet50 and
            efficientnet_lite0.

    Returns:
        {"classes", "models": [{"name", "paper", "certain", "reconstructed"}], "backbones":
        [{"name", "paper", "weights", "resize", "crop"}], "recipes": [names], "costs": [{"model",
        "backbone", "parameters", "gmac": {"224", "448"}}]}. `gmac` is 10^9 multiply-accumulates of
        the convolutions and matrix products of one image, for `classes` labels.
    """
    return listing(backbone or BACKBONES_SHOWN)


def listing(shown: Iterable[str]) -> dict[str, Any]:
    """Return what `finedge models` prints, with the costs on the backbones `shown`."""
    from finedge.train.backbones import BACKBONES, entry
    from finedge.train.models import MODELS
    from finedge.train.recipe import recipe_names

    for name in shown:
        entry(name)  # an unknown one is told before anything is counted
    return {
        "classes": CLASSES,
        "models": [{"name": name, **vars(model.about)} for name, model in MODELS.items()],
        "backbones": [
            {
                "name": name,
                "paper": e.paper,
                "weights": ["none", *e.weights],
                "resize": e.preprocess.resize,
                "crop": e.preprocess.crop,
            }
            for name, e in BACKBONES.items()
        ],
        "recipes": list(recipe_names()),
        "costs": [
            {"model": model, "backbone": backbone, **cost(model, backbone=backbone)}
            for backbone in shown
            for model in MODELS
        ],
    }


def cost(
    model: str, *, backbone: str, num_classes: int = CLASSES, **options: Any
) -> dict[str, Any]:
    """Count the parameters, and GMAC by input size, of a model (with its `options`) that is never given memory (meta tensors)."""
    import torch

    from finedge.train.models import build

    with torch.device("meta"):
        net = build(model, num_classes=num_classes, backbone=backbone, **options)
    gmac = {str(size): round(macs(net, height=size, width=size) / 1e9, 3) for size in SIZES}
    return {"parameters": sum(p.numel() for p in net.parameters()), "gmac": gmac}


def macs(net: FineGrained, *, height: int, width: int) -> int:
    """Count the multiply-accumulates of one image in a model on meta tensors, in evaluation."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ours = {
        torch.ops.finedge.cross_layer_attention: _attention_flops,
        torch.ops.finedge.channel_attention: _channel_attention_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=ours) as counter, torch.no_grad():
        net.eval()(torch.empty(1, 3, height, width, device="meta"))
    return int(counter.get_total_flops()) // 2


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Two matrix products, q^T k and v p^T, from the shapes [B, C, H, W] that the counter passes."""
    queries, keys = q[2] * q[3], k[2] * k[3]
    flops: int = 2 * q[0] * queries * keys * (q[1] + v[1])
    return flops


def _channel_attention_flops(
    q: Any, k: Any, v: Any, groups: int, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    """Two matrix products in each group of c channels, q k^T and p v."""
    inside = q[1] // groups
    flops: int = 2 * q[0] * groups * inside * inside * (q[2] * q[3] + v[2] * v[3])
    return flops
