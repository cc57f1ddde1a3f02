"""What cached feature maps depend on: pictures, weights and pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from finedge.data import DataSet, split_of_dataset
from finedge.spec import Preprocess
from finedge.train.backbones import Backbone
from finedge.train.quick.cached_backbone import CachedBackbone
from finedge.train.recipe import Recipe

FORMAT = 1
VIEW_SEED = 0
"""Seed of the augmented views.

It is not the recipe's, so that trainings with several seeds share one cache.
"""

# Keys that change no pixel of a view. Every other key is part of the record: a key that is added
# to the recipe later leads to a new cache, never to a wrong one.
PIXEL_FREE = frozenset(
    (
        *("epochs", "batch_size", "accumulate", "start_size", "train_size"),
        *("views", "seed", "options", "head_epochs", "full_epochs", "full_lr"),
        *("lr", "backbone_lr", "momentum", "nesterov", "weight_decay", "decay_norm", "ema"),
        *("schedule", "milestones", "gamma", "warmup_epochs", "warmup_start", "label_smoothing"),
        *("bf16", "channels_last", "compile", "freeze", "freeze_norm"),
        *("distill_weight", "distill_temperature", "optimizer", "layer_decay", "class_weights"),
        *("mixup", "cutmix", "mix_share", "sampling", "patience", "keep", "val"),
    )
)


@dataclass(frozen=True)
class CacheRecord:
    """All that the cached maps depend on, as plain data.

    Attributes:
        format: of the files.
        backbone: its name.
        weights: sha256 of the weights and statistics of its frozen blocks.
        preprocess: the pixels of evaluation.
        augmentation: the keys of the recipe that shape the pixels of augmented views.
        images: {split: sha256 of the contents of its images, in order}.
    """

    format: int
    backbone: str
    weights: str
    preprocess: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    images: Mapping[str, str]

    @property
    def key(self) -> str:
        """Return 16 hexadecimal digits that stand for the record: the name of its folder."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()[:16]

    def to_text(self) -> str:
        """Return the text of record.json."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)


def cache_record(
    backbone: Backbone, data: DataSet, *, preprocess: Preprocess, recipe: Recipe
) -> CacheRecord:
    """Return the record of a data set's maps; the image files are hashed."""
    return CacheRecord(
        format=FORMAT,
        backbone=backbone.name,
        weights=weights_digest(_frozen_state(backbone)),
        preprocess=asdict(preprocess),
        augmentation=augmentation(recipe),
        images=_image_digests(data),
    )


def augmentation(recipe: Recipe) -> dict[str, Any]:
    """Return the keys of a recipe that shape the pixels of augmented views."""
    return {name: value for name, value in recipe.to_json().items() if name not in PIXEL_FREE}


def view_recipe(recipe: Recipe) -> Recipe:
    """Return `recipe` with the seed of the views."""
    return replace(recipe, seed=VIEW_SEED)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a network's state: names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _frozen_state(backbone: Backbone) -> dict[str, Tensor]:
    """Return the state of the blocks that are not trained: all of them in most backbones."""
    state = backbone.state_dict()
    if not isinstance(backbone, CachedBackbone):
        return state
    blocks = tuple(f"{block}." for block in backbone.frozen_blocks())
    return {name: tensor for name, tensor in state.items() if name.startswith(blocks)}


def _image_digests(data: DataSet) -> dict[str, str]:
    return {
        split: hashlib.sha256(" ".join(entry.digest for entry in entries).encode()).hexdigest()
        for split, entries in split_of_dataset(data).splits.items()
    }
