"""Batches of one image: BatchNorm cannot train on one value a channel: its variance is 0."""

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
    """Refuse batches of `images` images if a BatchNorm of the model would see one value a channel.

    A rule by batch size alone would be wrong both ways: at 448 px most maps have many positions,
    and one image is enough; a head on averaged features has none. So the model itself answers, on
    shapes without data (the meta device), at the smallest side that the recipe trains at. A
    BatchNorm that is frozen takes any batch.

    Raises:
        UsageError: such a BatchNorm exists; the text names it.
    """
    if images != 1:
        return
    side = recipe.side(0)  # sides only grow
    starved = _starved(model, recipe, side=side)
    if starved:
        raise UsageError(
            f"a batch of one image: BatchNorm '{starved}' sees one value a channel at {side} px",
            expected="at least 2 images a batch in each process",
            fix="--batch-size 2 or more (of all processes together), or freeze_norm = true in the recipe",
        )


def _starved(model: FineGrained, recipe: Recipe, *, side: int) -> str:
    """Return the first BatchNorm that sees one value a channel of one image, or ""."""
    shapes = copy.deepcopy(model).to("meta")
    to_training_mode(shapes, freeze_norm=recipe.freeze_norm)
    starved: list[str] = []

    def look(name: str, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            starved.append(name)

    for name, module in shapes.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(
                lambda norm, inputs, name=name: look(name, norm, inputs),
            )
    try:
        shapes(torch.empty(1, 3, side, side, device="meta"))
    except ValueError:  # PyTorch's own refusal of such a BatchNorm
        if not starved:
            raise
    return starved[0] if starved else ""
