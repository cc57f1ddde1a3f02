"""The stage `frozen`: heads on cached maps of a backbone that is not trained.

It takes seconds to minutes a head, so that many seeds can be afforded. It says what a head adds to
fixed features, and not what it adds where the backbone adapts to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from finedge.data import DataSet, drop_unreadable, open_dataset
from finedge.errors import DataError
from finedge.files import write_bytes
from finedge.train.distributed import World
from finedge.train.folder import begin
from finedge.train.models import FineGrained
from finedge.train.plan import RunPlan
from finedge.train.quick.cache_record import augmentation
from finedge.train.quick.cached_backbone import CachedBackbone, map_shapes
from finedge.train.quick.feature_cache import FeatureCache, plan_cache
from finedge.train.run import record_texts
from finedge.train.session import run_record, run_spec
from finedge.train.sweep.heads import answers, train_head
from finedge.train.sweep.plan import SEED, SweepRun
from finedge.train.sweep.rows import Answers
from finedge.train.sweep.stage import Trained
from finedge.train.trainer import Job, Trainer

SPLITS = ("train", "val", "test")
BACKBONE = "backbone."


class FrozenStage:
    """Trains heads.

    The val split of data sets without one is cut with the first seed, for all seeds: the maps are
    cached once.

    Args:
        data: {name: folder of images}.
        maps: folder for the cached maps.
        workers: threads that prepare images for the cache.
    """

    def __init__(self, data: Mapping[str, Path], *, maps: Path, workers: int) -> None:
        self.data, self.maps, self.workers = data, maps, workers
        self._sets: dict[tuple[str, float], DataSet] = {}
        self._caches: dict[tuple[object, ...], FeatureCache] = {}

    def train(self, run: SweepRun, *, weights: Path) -> Trained:
        """Train a head, write its weights as a safetensors file, and answer on val.

        Raises:
            UsageError: a model that needs a trained backbone, or a wrong value of an option.
        """
        plan = run.setting.plan(run.seed)
        model, cache = self._built(run, plan)
        loss = train_head(model, cache, plan.recipe)
        val = answers(model, cache, split="val")
        state = {k: v for k, v in model.state_dict().items() if not k.startswith(BACKBONE)}
        write_bytes(weights, save({k: v.contiguous() for k, v in state.items()}))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return Trained(val, loss, trained)

    def test(self, run: SweepRun, *, weights: Path) -> Answers:
        """Return the answers of a trained head on the test split."""
        model, cache = self._built(run, run.setting.plan(run.seed))
        _load_head(model, weights)
        return answers(model, cache, split="test")

    def whole(self, run: SweepRun, *, weights: Path, spare: Path) -> Path:
        """Write backbone and trained head as a run into the folder `spare`, and return it."""
        setting, plan = run.setting, run.setting.plan(run.seed)
        images = self._set(setting.group.data, val=plan.recipe.val)
        model = plan.build(labels=images.labels)
        _load_head(model, weights)
        spec = run_spec(plan, images.labels, outputs=model.outputs)
        world = World(torch.device("cpu"))
        job = Job(spare, model, spec, plan.recipe, images, plan.pretrained, world)
        trainer = Trainer(job)
        trainer.epoch = plan.recipe.epochs
        record = run_record(job, weights=plan.weights, command=f"finedge sweep: {run.path}")
        begin(spare, record_texts(record, data=images), save=trainer.save)
        return spare

    def _built(self, run: SweepRun, plan: RunPlan) -> tuple[FineGrained, FeatureCache]:
        name = run.setting.group.data
        images = self._set(name, val=plan.recipe.val)
        torch.manual_seed(plan.recipe.seed)
        model = plan.build(labels=images.labels)
        shapes = map_shapes(model, size=plan.recipe.size)
        pixels = (plan.preprocess, plan.recipe.views, repr(augmentation(plan.recipe)))
        key = (name, plan.recipe.val, plan.backbone, plan.weights, *pixels, *sorted(shapes))
        if key not in self._caches:
            maps = plan_cache(
                model.backbone,
                images,
                preprocess=plan.preprocess,
                recipe=plan.recipe,
                shapes=shapes,
                place=self.maps,
                splits=SPLITS,
            )
            maps.require_room()
            self._caches[key] = maps.fill(model.backbone, workers=self.workers)
        model.backbone = CachedBackbone(model.backbone)
        return model, self._caches[key]

    def _set(self, name: str, *, val: float) -> DataSet:
        if (name, val) not in self._sets:
            images = open_dataset(self.data[name], seed=SEED, val=val)
            self._sets[name, val] = drop_unreadable(images)
        return self._sets[name, val]


def _load_head(model: FineGrained, weights: Path) -> None:
    """Load what `train` wrote; `DataError` if the file is missing, damaged or of another model."""
    try:
        lacking, extra = model.load_state_dict(load_file(weights), strict=False)
    # PyTorch's error of another shape is a RuntimeError.
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise _misfit(weights, reason) from error
    wrong = [*extra, *(name for name in lacking if not name.startswith(BACKBONE))]
    if wrong:
        raise _misfit(weights, f"'{wrong[0]}'")


def _misfit(weights: Path, reason: str) -> DataError:
    return DataError(
        f"{weights} cannot be read, or is of another model: {reason}",
        expected="the weights that this sweep trained",
        fix="delete the row of this training: it is then trained again",
    )
