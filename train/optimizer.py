"""SGD in parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from finedge.train.models import FineGrained
from finedge.train.recipe import Recipe


def sgd(model: FineGrained, recipe: Recipe, *, backbone_lr: float) -> torch.optim.SGD:
    """Return SGD over the trainable parameters of `model`.

    All but the model's `new_parameters` get `backbone_lr` times the learning rate. The recipe says
    whether vectors (normalisation weights and biases) are decayed. Each group has its `factor` for
    `set_lr`.
    """
    new = {id(p) for p in model.new_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            factor = 1.0 if id(parameter) in new else backbone_lr
            decay = recipe.weight_decay if parameter.ndim > 1 or recipe.decay_norm else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.SGD(
        [
            {"params": params, "factor": factor, "weight_decay": decay}
            for (factor, decay), params in groups.items()
        ],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )


def lr_at(step: int, recipe: Recipe, *, steps_per_epoch: int) -> float:
    """Return the learning rate of the new layers at a step of the optimizer (0-based).

    The warm-up is a straight line from `warmup_start` to `lr`, which its last step reaches. Then
    follows half a cosine down to 0, or a factor `gamma` from each of `milestones` on. Without a
    warm-up this is torch's CosineAnnealingLR over the whole run, or its MultiStepLR.
    """
    total, warmup = recipe.epochs * steps_per_epoch, int(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.warmup_start + (recipe.lr - recipe.warmup_start) * (step + 1) / warmup
    if recipe.schedule == "step":
        drops = sum(step >= round(milestone * steps_per_epoch) for milestone in recipe.milestones)
        return float(recipe.lr * recipe.gamma**drops)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_lr(optimizer: torch.optim.SGD, lr: float) -> None:
    """Give every group `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def momenta(
    model: nn.Module, optimizer: torch.optim.SGD
) -> Iterator[tuple[str, nn.Parameter, torch.Tensor | None]]:
    """Yield (name, parameter, momentum buffer or None) for every parameter the optimizer steps."""
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in stepped:
            yield name, parameter, optimizer.state[parameter].get("momentum_buffer")
