"""The training loop on cached maps: the same epochs, steps, checkpoint and metrics.

The backbone is frozen. Validation after an epoch reads cached maps too (float16). After the last
epoch it runs the whole model on the images, so that the accuracy that the run reports is that of
the model that is exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from finedge.errors import UsageError
from finedge.files import writable_place
from finedge.train.evaluate.accuracy import Predictions, answers_of
from finedge.train.loader import Batch, batched
from finedge.train.models import FineGrained
from finedge.train.quick.cached_backbone import CachedBackbone, cached_backbone, map_shapes
from finedge.train.quick.feature_cache import CachePlan, FeatureCache, plan_cache
from finedge.train.quick.map_folders import remove_unused
from finedge.train.quick.scores import cached_scores
from finedge.train.trainer import Job, Trainer

VIEWS = 1  # the stream of random numbers that draws the view of each image


class QuickTrainer(Trainer):
    """Trains what comes after the backbone's maps.

    Args:
        job: as for `Trainer`.
        maps: the folder of the feature caches.

    Raises:
        UsageError: the job needs more than cached maps.
    """

    def __init__(self, job: Job, *, maps: Path) -> None:
        _require_quick(job)
        self.place = maps
        stages = job.recipe.freeze
        self.shapes = map_shapes(job.model, size=job.recipe.size, stages=stages)
        job.model.backbone = CachedBackbone(job.model.backbone, stages=stages)
        super().__init__(job)
        self.step.inputs = self._serve

    @cached_property
    def plan(self) -> CachePlan:
        """The maps that this training needs; the weights must be loaded before."""
        job = self.job
        return plan_cache(
            self.model.backbone,
            job.data,
            preprocess=job.spec.preprocess,
            recipe=job.recipe,
            shapes=self.shapes,
            place=self.place,
            read=self.read,
        )

    def save(self) -> None:
        """Write metrics and checkpoint. Before the first of them, the room for the maps is checked.

        Raises:
            SystemProblem: the maps cannot be written, or the disk has no room for them; nothing
                was written.
        """
        if self.epoch == 0:
            self._make_room()
        super().save()

    def load(self) -> None:
        """Go back to the run's checkpoint; the room for maps that are missing is checked."""
        super().load()
        if self.epoch < self.recipe.epochs:
            self._make_room()

    def _make_room(self) -> None:
        """Remove caches that were not used for long, and check the room for this one."""
        plan = self.plan
        writable_place(plan.folder, option="--maps")
        remove_unused(plan.place, keep=plan.folder, room=plan.missing_bytes)
        plan.require_room()

    @cached_property
    def cache(self) -> FeatureCache:
        """The maps, computed where they are missing: in the first epoch, so that the run exists."""
        backbone = cached_backbone(self.model)
        backbone.maps = None
        return self.plan.fill(backbone, workers=self.workers, device=self.world.device)

    def _stream(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; their frames are rows (view, index) int64 [B, 2]."""
        recipe, labels = self.recipe, self.cache.labels["train"]
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)
        generator = np.random.default_rng((recipe.seed, epoch))
        order = generator.permutation(len(labels))[: self.steps * self.images_per_step]
        drawn = np.random.default_rng((recipe.seed, epoch, VIEWS))
        views = drawn.integers(self.cache.views + 1, size=len(labels))
        for group in batched(order.tolist(), recipe.batch_size):
            rows = np.array([(views[index], index) for index in group], np.int64)
            yield Batch(torch.from_numpy(rows), labels[list(group)])

    def _serve(self, rows: torch.Tensor) -> torch.Tensor:
        """Give the backbone the maps of rows (view, index); the images themselves are empty."""
        device = self.world.device
        views, indices = rows.cpu().T.tolist()
        maps = self.cache.maps(views, indices, split="train")
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        cached_backbone(self.model).maps = {
            block: value.to(device, memory_format=layout) for block, value in maps.items()
        }
        return torch.empty(len(indices), 0, device=device)

    def _answers(self, model: FineGrained) -> Predictions:
        if self.epoch + 1 == self.recipe.epochs:
            cached_backbone(model).maps = None
            return super()._answers(model)
        if "val" not in self.cache.labels:
            return Predictions.of([])
        scores = cached_scores(model, self.cache, split="val", device=self.world.device)
        return Predictions.of([answers_of(scores, self.cache.labels["val"])])


def _require_quick(job: Job) -> None:
    """Refuse what cached maps cannot serve."""
    refused = {
        "several processes": job.world.size > 1,
        "--compile": job.recipe.compile,
        "--teacher": job.teacher is not None,
    }
    # Mixing and a teacher need the pixels; the weights of the last epoch are the ones validated.
    recipe = job.recipe
    refused |= {
        "mixup or cutmix": bool(recipe.mixup or recipe.cutmix),
        "balanced sampling": recipe.sampling == "balanced",
        "patience": recipe.patience > 0,
        'keep = "best"': recipe.keep == "best",
    }
    for what in (name for name, asked in refused.items() if asked):
        raise UsageError(
            f"--quick with {what}",
            expected="one process that trains on cached maps for all its epochs",
            fix="leave one of them out",
        )
