"""`finedge models`: the models, backbones and recipes, and their costs, counted at the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tyro

BACKBONES_LISTED = ("resnet50", "efficientnet_lite0")


def models(
    *, json: bool = False, backbone: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
) -> dict[str, Any] | None:
    """List the models with their papers and costs, the backbones and the recipes.

    Args:
        json: print one JSON object with all details instead of tables.
        backbone: count the costs on this backbone; can be given several times. Default: resnet50
            and efficientnet_lite0.

    Returns:
        With --json {"classes", "models": [{"name", "paper", "certain", "reconstructed"}],
        "backbones": [{"name", "paper", "weights", "resize", "crop"}], "recipes": [names], "costs":
        [{"model", "backbone", "parameters", "gmac": {"224", "448"}}]}. `gmac` is 10^9
        multiply-accumulates of the convolutions and matrix products of one image, for `classes`
        labels.
    """
    listing = list_models(backbone or BACKBONES_LISTED)
    if json:
        return listing
    _print_tables(listing)
    return None


def list_models(backbones: Sequence[str]) -> dict[str, Any]:
    """Return what `finedge models --json` prints, with the costs on `backbones`."""
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


def _print_tables(listing: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    from finedge.train.cost import SIZES

    console = Console(highlight=False)
    for model in listing["models"]:
        console.print(f"[bold]{model['name']}[/bold]: {model['paper']}")
        for key in ("certain", "reconstructed"):
            console.print(Padding(f"{key}: {model[key]}", (0, 0, 0, 4)))
    costs = Table(
        "model",
        "backbone",
        "parameters",
        *(f"GMAC {size}" for size in SIZES),
        title=f"costs, {listing['classes']} classes",
        title_justify="left",
    )
    for row in listing["costs"]:
        costs.add_row(
            row["model"],
            row["backbone"],
            f"{row['parameters'] / 1e6:.2f} M",
            *(f"{row['gmac'][str(size)]:.2f}" for size in SIZES),
        )
    console.print(costs)
    console.print("backbones:", ", ".join(entry["name"] for entry in listing["backbones"]))
    console.print("recipes:", ", ".join(listing["recipes"]))
