"""Training of the layers after a frozen backbone, on cached maps."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finedge.errors import FinedgeError
from finedge.train.loader import batched
from finedge.train.models import FineGrained
from finedge.train.optimizer import build_optimizer, lr_at, set_lr
from finedge.train.quick.cached_backbone import cached_backbone
from finedge.train.quick.feature_cache import FeatureCache
from finedge.train.quick.scores import cached_scores
from finedge.train.recipe import Recipe
from finedge.train.sweep.rows import Answers

IMAGES = torch.empty(0)  # the cached backbone does not look at images


def train_head(model: FineGrained, cache: FeatureCache, recipe: Recipe) -> float:
    """Train all but the backbone of a model in place; return the mean loss of the last epoch.

    Every image has one of its views, drawn for each epoch. The optimizer and its schedule are the
    recipe's; the moving average is not kept.

    Args:
        model: with a `CachedBackbone`.
        cache: the maps of the train split.
        recipe: its seed gives order and views.

    Raises:
        FinedgeError: the loss is not finite.
    """
    backbone = cached_backbone(model)
    targets = cache.labels["train"]
    steps = len(batched(range(len(targets)), recipe.batch_size))
    optimizer = build_optimizer(model, recipe, backbone_lr=recipe.backbone_lr)
    loss = math.nan
    for epoch in range(recipe.epochs):
        model.train()
        generator = np.random.default_rng((recipe.seed, epoch))
        order = generator.permutation(len(targets))
        views = generator.integers(cache.views + 1, size=len(targets))
        total = torch.zeros(())
        for step, rows in enumerate(batched(order.tolist(), recipe.batch_size)):
            set_lr(optimizer, lr_at(epoch * steps + step, recipe, steps_per_epoch=steps))
            backbone.maps = cache.maps(views[rows].tolist(), rows)
            batch = _loss(model, targets[rows], recipe)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(batch)
            optimizer.step()
            total += batch.detach() * len(rows)
        loss = float(total) / len(targets)
        if not math.isfinite(loss):
            raise FinedgeError(
                f"the loss is {loss} after epoch {epoch + 1}", fix="a lower rate: lr in the search"
            )
    return loss


def answers(model: FineGrained, cache: FeatureCache, *, split: str) -> Answers:
    """Return the answers of a model with a `CachedBackbone` on a cached split."""
    if split not in cache.labels:
        return Answers(np.zeros(0, np.bool_))
    scores, targets = cached_scores(model, cache, split=split), cache.labels[split]
    right = (scores.argmax(dim=1) == targets).numpy()
    return Answers(right, float(F.cross_entropy(scores.float(), targets)))


def _loss(model: FineGrained, targets: Tensor, recipe: Recipe) -> Tensor:
    return model.loss(model(IMAGES), targets, label_smoothing=recipe.label_smoothing)
