"""Refuses batches of one image where BatchNorm cannot train on them.

With one value for each channel the variance is 0.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from finedge.errors import UsageError
from finedge.train.models import FineGrained
from finedge.train.recipe import Recipe
from finedge.train.step import to_training_mode


def require_trainable(model: FineGrained, recipe: Recipe, *, images: int) -> None:
    """Refuse batches of `images` images if a BatchNorm would see one value for each channel.

    A rule by batch size alone would be wrong in both directions. At 448 px most maps have many
    positions, and one image is enough; a head on averaged features has one position. So the model
    runs on shapes without data (the meta device), at the smallest side that the recipe trains at. A
    frozen BatchNorm takes any batch.

    Raises:
        UsageError: there is such a BatchNorm; the text names it.
    """
    if images != 1:
        return
    side = recipe.side(recipe.head_epochs)  # sides only grow from there on
    norm = _single_value_norm(model, recipe, side=side)
    if norm:
        raise UsageError(
            f"a batch of one image: BatchNorm '{norm}' sees one value for each channel at "
            f"{side} px",
            expected="at least 2 images in a batch of each process",
            fix="--batch-size 2 or more (over all processes), or freeze_norm = true in the recipe",
        )


def _single_value_norm(model: FineGrained, recipe: Recipe, *, side: int) -> str:
    """Return the first BatchNorm that sees one value for each channel of one image, or ""."""
    shapes = copy.deepcopy(model).to("meta")
    to_training_mode(shapes, freeze_norm=recipe.freeze_norm)
    names: list[str] = []

    def note(name: str, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            names.append(name)

    for name, module in shapes.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(
                lambda norm, inputs, name=name: note(name, norm, inputs),
            )
    try:
        shapes(torch.empty(1, 3, side, side, device="meta"))
    except ValueError:  # PyTorch's own refusal of such a BatchNorm
        if not names:
            raise
    return names[0] if names else ""
