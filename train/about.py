"""`finedge models`: what there is to train, where it comes from, and what it costs, counted on the spot."""

from __future__ import annotations

from typing import Any

CLASSES = 200
SIZES = (224, 448)


def models() -> dict[str, Any]:
    """List the models, backbones and recipes, with the cost of every model on every backbone.

    Returns:
        {"classes", "models": [{"name", "paper", "certain", "reconstructed"}], "backbones": [{"name", "paper", "weights",
        "resize", "crop"}], "recipes": [names], "costs": [{"model", "backbone", "parameters", "gmac": {"224", "448"}}]}. `gmac` is 10^9
        multiply-accumulates of the convolutions and matrix products of one image, for `classes` labels.
    """
    from finedge.train.backbones import BACKBONES
    from finedge.train.models import MODELS
    from finedge.train.recipe import recipe_names

    return {
        "classes": CLASSES,
        "models": [{"name": name, **vars(model.about)} for name, model in MODELS.items()],
        "backbones": [
            {"name": name, "paper": e.paper, "weights": ["none", *e.weights], "resize": e.preprocess.resize, "crop": e.preprocess.crop}
            for name, e in BACKBONES.items()
        ],
        "recipes": list(recipe_names()),
        "costs": [{"model": model, "backbone": backbone, **cost(model, backbone=backbone)} for backbone in BACKBONES for model in MODELS],
    }


def cost(model: str, *, backbone: str, num_classes: int = CLASSES, **options: Any) -> dict[str, Any]:
    """Count the parameters, and GMAC by input size, of a model (with its `options`) that is never given memory (meta tensors)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from finedge.train.models import build

    with torch.device("meta"):
        net = build(model, num_classes=num_classes, backbone=backbone, **options).eval()
    ours = {torch.ops.finedge.cross_layer_attention: _attention_flops, torch.ops.finedge.channel_attention: _channel_attention_flops}
    gmac: dict[str, float] = {}
    for size in SIZES:
        with FlopCounterMode(display=False, custom_mapping=ours) as counter, torch.no_grad():
            net(torch.empty(1, 3, size, size, device="meta"))
        gmac[str(size)] = round(counter.get_total_flops() / 2e9, 3)
    return {"parameters": sum(p.numel() for p in net.parameters()), "gmac": gmac}


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Two matrix products, q^T k and v p^T, from the shapes [B, C, H, W] that the counter passes."""
    queries, keys = q[2] * q[3], k[2] * k[3]
    flops: int = 2 * q[0] * queries * keys * (q[1] + v[1])
    return flops


def _channel_attention_flops(q: Any, k: Any, v: Any, groups: int, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Two matrix products in each group of c channels, q k^T and p v."""
    inside = q[1] // groups
    flops: int = 2 * q[0] * groups * inside * inside * (q[2] * q[3] + v[2] * v[3])
    return flops
