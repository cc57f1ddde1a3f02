"""SGD or AdamW in parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from finedge.train.models import FineGrained
from finedge.train.recipe import Recipe

BETA2 = 0.999  # of AdamW: torch's and timm's default; beta1 is the recipe's momentum


# Of one parameter, as torch names them: what AdamW and SGD remember between steps.
STATES = {
    "momentum": "momentum_buffer",
    "exp_avg": "exp_avg",
    "exp_avg_sq": "exp_avg_sq",
    "steps": "step",
}


def build_optimizer(
    model: FineGrained, recipe: Recipe, *, backbone_lr: float
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over the trainable parameters of `model`.

    All but the model's `new_parameters` get `backbone_lr` times the learning rate, and a factor
    `layer_decay` for each block of the backbone with weights from theirs to the end, theirs
    included (as BEiT, arXiv 2106.08254). The recipe says whether vectors (normalisation weights and
    biases) are decayed. Each group has its `factor` for `set_lr`.
    """
    factors = _factors(model, recipe, backbone_lr=backbone_lr)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            factor = factors[id(parameter)]
            decay = recipe.weight_decay if parameter.ndim > 1 or recipe.decay_norm else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    described = [
        {"params": params, "factor": factor, "weight_decay": decay}
        for (factor, decay), params in groups.items()
    ]
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, BETA2)
        return torch.optim.AdamW(described, lr=recipe.lr, betas=betas)
    return torch.optim.SGD(
        described,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )


def _factors(model: FineGrained, recipe: Recipe, *, backbone_lr: float) -> dict[int, float]:
    """Return {id of a parameter: factor on the learning rate of the new layers}."""
    factors = {id(p): backbone_lr for p in model.parameters()}
    backbone = model.backbone
    blocks = [list(backbone.get_submodule(block).parameters()) for block in backbone.chain]
    for depth, parameters in enumerate(filter(None, reversed(blocks)), 1):
        factors |= {id(p): backbone_lr * recipe.layer_decay**depth for p in parameters}
    return factors | {id(p): 1.0 for p in model.new_parameters()}


def lr_at(step: int, recipe: Recipe, *, steps_per_epoch: int) -> float:
    """Return the learning rate of the new layers at a step of the optimizer (0-based).

    The warm-up is a straight line from `warmup_start` to `lr`, which its last step reaches. Then
    follows half a cosine down to 0, or a factor `gamma` from each of `milestones` on. Without a
    warm-up this is torch's CosineAnnealingLR over the whole run, or its MultiStepLR. The epochs of
    `head_epochs`, of `full_epochs` and those between them each have a warm-up and a cosine of their
    own.
    """
    step, total, factor = _phase(step, recipe, steps_per_epoch=steps_per_epoch)
    warmup = min(total, int(recipe.warmup_epochs * steps_per_epoch))
    if step < warmup:
        start = recipe.warmup_start
        return factor * (start + (recipe.lr - start) * (step + 1) / warmup)
    if recipe.schedule == "step":
        drops = sum(step >= round(milestone * steps_per_epoch) for milestone in recipe.milestones)
        return float(recipe.lr * recipe.gamma**drops)
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    return factor * (recipe.lr * cosine)


def _phase(step: int, recipe: Recipe, *, steps_per_epoch: int) -> tuple[int, int, float]:
    """Return the number of a step in its phase, the steps of the phase, and its factor on `lr`."""
    head, middle, full = (
        epochs * steps_per_epoch
        for epochs in (recipe.head_epochs, recipe.all_epochs, recipe.full_epochs)
    )
    if step < head:
        return step, head, 1.0
    if full and step >= head + middle:
        return step - head - middle, full, recipe.full_lr
    return step - head, middle, 1.0


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def remembered(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (KIND.NAME, tensor) of all that the optimizer remembers; KIND is a key of `STATES`."""
    for name, parameter in _stepped(model, optimizer):
        state = optimizer.state[parameter]
        for kind, key in STATES.items():
            if state.get(key) is not None:
                yield f"{kind}.{name}", state[key]


def remember(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Give the optimizer back what `remembered` yielded; other names are left alone.

    Raises:
        ValueError: a tensor of another shape than its parameter; the text has the name.
    """
    for name, parameter in _stepped(model, optimizer):
        for kind, key in STATES.items():
            tensor = tensors.get(f"{kind}.{name}")
            if tensor is None:
                continue
            # In the layout of the parameter: the same kernels run as without the interruption.
            whole = torch.empty((), dtype=tensor.dtype) if kind == "steps" else parameter.detach()
            if tensor.shape != whole.shape:
                shapes = f"{tuple(tensor.shape)} for {tuple(whole.shape)}"
                raise ValueError(f"{kind}.{name} {shapes}")
            optimizer.state[parameter][key] = torch.empty_like(whole).copy_(tensor)


def _stepped(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, nn.Parameter]]:
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in stepped:
            yield name, parameter
