"""Starting a training, anew or from a run's checkpoint."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from finedge import __version__
from finedge.data import DataSet, drop_unreadable, open_dataset
from finedge.errors import UsageError
from finedge.spec import Input, Method, Preprocess, Spec
from finedge.train import backbones
from finedge.train.device import Device, choose_device
from finedge.train.loader import default_workers
from finedge.train.models import FineGrained, build
from finedge.train.models import entry as model_entry
from finedge.train.recipe import Recipe, override, read_recipe, recipe_from
from finedge.train.run import RECORD, read_record, rebuild, recorded_data, write_record, write_run
from finedge.train.trainer import Job, Trainer

log = logging.getLogger(__name__)

Given = Mapping[str, Any]  # the arguments of `finedge train` that were given
RECIPE_OPTIONS = ("epochs", "size", "batch_size", "lr", "seed", "freeze", "ema")
RESUMABLE = ("out", "data", "epochs", "batch_size", "lr")  # what a resumed training may be told anew


def fresh(out: Path, given: Given, *, device: Device, workers: int | None) -> Trainer:
    """Return the trainer of a new run, whose folder `out` is then resumable; nothing that exists is overwritten (`UsageError`)."""
    _require_absent(out)
    if "data" not in given:
        raise UsageError("no --data", expected="a folder of images", fix="finedge data render DIR makes one to try with")
    settings = read_recipe(given.get("recipe", "common"), **_recipe_options(given))
    name, backbone, weights = given.get("model", "cnl"), given.get("backbone", "efficientnet_lite0"), given.get("weights", "imagenet")
    model_entry(name)  # before the images are looked at: a wrong argument is told at once
    how = _preprocess(backbone, settings)
    found = open_dataset(given["data"], seed=settings.seed)
    torch.manual_seed(settings.seed)
    model = build(name, num_classes=len(found.labels), backbone=backbone, weights=weights, **settings.options)
    images = drop_unreadable(found)
    spec = Spec(name, backbone, images.labels, how, Input(settings.size, settings.size), model.outputs)
    trainer = _trainer(out, model, spec=spec, recipe=settings, data=images, pretrained=weights != "none", device=device, workers=workers)
    trainer.save()
    write_run(out, _record(trainer.job, given, weights=weights), data=images)
    return trainer


def resumed(out: Path, given: Given, *, device: Device, workers: int | None) -> Trainer:
    """Return the trainer of the run in `out`, at its checkpoint; only what RESUMABLE names may be given anew (`UsageError`)."""
    record = read_record(out)
    fixed = sorted(set(given) - set(RESUMABLE))
    if fixed:
        flag = fixed[0].replace("_", "-")
        raise UsageError(f"--{flag} cannot change with --resume", expected=f"only {', '.join(RESUMABLE)}", fix="leave it out, or train anew")
    settings = override(recipe_from(record["recipe"]), **_recipe_options(given))
    if settings.to_json() != record["recipe"]:
        log.warning("the recipe changed: the result is not that of an uninterrupted run")
    trainer = _trainer(
        out,
        rebuild(record),
        spec=Spec.from_json(record["spec"]),
        recipe=settings,
        data=recorded_data(out, root=given.get("data")),
        pretrained=record["model"]["weights"] != "none",
        device=device,
        workers=workers,
    )
    trainer.load()
    write_record(out, {**record, "recipe": settings.to_json(), "commands": [*record["commands"], _command(given, "--resume")]})
    log.info("going on after epoch %d of %d", trainer.epoch, settings.epochs)
    return trainer


def _trainer(out: Path, model: FineGrained, *, spec: Spec, recipe: Recipe, data: DataSet, pretrained: bool, device: Device, workers: int | None) -> Trainer:
    model.backbone.freeze(recipe.freeze)
    where = choose_device(device)
    log.info("%s on %s; %s; %s", spec.model, spec.backbone, spec.preprocess.describe(), where)
    return Trainer(Job(out, model, spec, recipe, data, pretrained, where, workers or default_workers()))


def _require_absent(out: Path) -> None:
    if (out / RECORD).is_file():
        raise UsageError(f"{out} holds a run", expected="a new folder", fix="--resume goes on with it; or choose another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not a run", expected="a new folder", fix="choose another --out; nothing was changed")


def _recipe_options(given: Given) -> dict[str, Any]:
    return {name: given[name] for name in RECIPE_OPTIONS if name in given}


def _preprocess(backbone: str, recipe: Recipe) -> Preprocess:
    how = backbones.entry(backbone).preprocess
    return replace(how, resize=recipe.resized, crop=recipe.size, method=cast(Method, recipe.method or how.method))


def _record(job: Job, given: Given, *, weights: str) -> dict[str, Any]:
    return {
        "spec": job.spec.to_json(),
        "model": {"name": job.spec.model, "backbone": job.spec.backbone, "weights": weights, "options": job.model.options},
        "recipe": job.recipe.to_json(),
        "data": {"root": str(job.data.root.resolve()), "layout": job.data.layout, "seed": job.recipe.seed, "cut": job.data.cut},
        "commands": [_command(given)],
        "versions": {"finedge": __version__, "torch": torch.__version__},
    }


def _command(given: Given, *flags: str) -> str:
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return shlex.join(["finedge", "train", *options, *flags])
