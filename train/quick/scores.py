"""What a model answers to a split whose maps are cached."""

from __future__ import annotations

import torch
from torch import Tensor

from finedge.train.loader import batched
from finedge.train.models import FineGrained
from finedge.train.quick.cached_backbone import cached_backbone
from finedge.train.quick.feature_cache import FeatureCache
from finedge.train.quick.views import EVALUATION

BATCH = 128


@torch.no_grad()
def cached_scores(
    model: FineGrained, cache: FeatureCache, *, split: str, device: torch.device | None = None
) -> Tensor:
    """Return the scores of a split's images, float [N, classes] on the CPU.

    Args:
        model: with a `CachedBackbone`; it is set to evaluation mode.
        cache: has the maps of the split, which is not empty.
        split: its name.
        device: where the model is; default is the CPU.
    """
    backbone = cached_backbone(model)
    main = next(output.name for output in model.outputs if output.role == "main")
    model.eval()
    scores = []
    for rows in batched(range(len(cache.labels[split])), BATCH):
        maps = cache.maps(EVALUATION, list(rows), split=split)
        backbone.maps = {block: value.to(device) for block, value in maps.items()}
        scores.append(model(torch.empty(len(rows), 0, device=device))[main].cpu())
    return torch.cat(scores)
