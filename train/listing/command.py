"""`finedge models`: the models, backbones and recipes, and their costs, counted at the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tyro

BACKBONES_LISTED = ("resnet50", "efficientnet_lite0")


def models(*, backbone: tyro.conf.UseAppendAction[tuple[str, ...]] = ()) -> dict[str, Any]:
    """List the models with their papers and costs, the backbones and the recipes.

    Args:
        backbone: count the costs on this backbone; can be given several times. Default: resnet50
            and efficientnet_lite0.

    Returns:
        {"classes", "models": [{"name", "paper", "certain", "reconstructed"}], "backbones":
        [{"name", "paper", "weights", "resize", "crop"}], "recipes": [names], "costs": [{"model",
        "backbone", "parameters", "gmac": {"224", "448"}}]}. `gmac` is 10^9 multiply-accumulates of
        the convolutions and matrix products of one image, for `classes` labels.
    """
    return list_models(backbone or BACKBONES_LISTED)


def list_models(backbones: Sequence[str]) -> dict[str, Any]:
    """Return what `finedge models` prints, with the costs on `backbones`."""
    from finedge.train.backbones import BACKBONES, entry
    from finedge.train.cost import CLASSES, cost
    from finedge.train.models import MODELS
    from finedge.train.recipe import recipe_names

    for name in backbones:
        entry(name)  # an unknown one is reported before anything is counted
    return {
        "classes": CLASSES,
        "models": [{"name": name, **vars(model.about)} for name, model in MODELS.items()],
        "backbones": [
            {
                "name": name,
                "paper": listed.paper,
                "weights": ["none", *listed.weights],
                "resize": listed.preprocess.resize,
                "crop": listed.preprocess.crop,
            }
            for name, listed in BACKBONES.items()
        ],
        "recipes": list(recipe_names()),
        "costs": [
            {"model": model, "backbone": backbone, **cost(model, backbone=backbone)}
            for backbone in backbones
            for model in MODELS
        ],
    }
