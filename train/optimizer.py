"""SGD in parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from finedge.train.recipe import Recipe


def sgd(model: nn.Module, recipe: Recipe, *, backbone_lr: float) -> torch.optim.SGD:
    """Return SGD over the trainable parameters of `model`.

    The parameters of `model.backbone` get `backbone_lr` times the learning rate. Vectors (normalisation weights and
    biases) are not decayed if the recipe says so. Each group carries its `factor` for `set_lr`.
    """
    backbone = {id(p) for p in model.get_submodule("backbone").parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            factor = backbone_lr if id(parameter) in backbone else 1.0
            decay = recipe.weight_decay if parameter.ndim > 1 or recipe.decay_norm else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.SGD(
        [{"params": params, "factor": factor, "weight_decay": decay} for (factor, decay), params in groups.items()],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )


def lr_at(step: int, recipe: Recipe, *, steps_per_epoch: int) -> float:
    """Return the learning rate of the new layers at a step (0-based): linear warm-up, then half a cosine down to 0."""
    total, warmup = recipe.epochs * steps_per_epoch, int(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_lr(optimizer: torch.optim.SGD, lr: float) -> None:
    """Give every group `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def momenta(model: nn.Module, optimizer: torch.optim.SGD) -> Iterator[tuple[str, nn.Parameter, torch.Tensor | None]]:
    """Yield (name, parameter, momentum buffer or None) for every parameter the optimizer steps."""
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in stepped:
            yield name, parameter, optimizer.state[parameter].get("momentum_buffer")
