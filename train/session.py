"""Starting a training, anew or from a run's checkpoint."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from finedge import __version__
from finedge.data import drop_unreadable, open_dataset
from finedge.errors import UsageError
from finedge.files import writable_place
from finedge.spec import Input, Method, Preprocess, Rule, Spec
from finedge.train import backbones
from finedge.train.distill import Teacher, open_teacher
from finedge.train.folder import begin, require_new
from finedge.train.lone import require_trainable
from finedge.train.models import FineGrained, build
from finedge.train.models import entry as model_entry
from finedge.train.options import parse_options
from finedge.train.recipe import Recipe, override, read_recipe, recipe_from
from finedge.train.run import read_record, rebuild, record_texts, recorded_data, write_record
from finedge.train.trainer import Job, Machine, Trainer

log = logging.getLogger(__name__)

Given = Mapping[str, Any]  # the arguments of `finedge train` that were given
RECIPE_OPTIONS = (
    "epochs",
    "size",
    "batch_size",
    "accumulate",
    "lr",
    "seed",
    "freeze",
    "ema",
    "compile",
)
RESUMABLE = (
    "out",
    "data",
    "epochs",
    "batch_size",
    "accumulate",
    "lr",
    "compile",
    "teacher",
)  # what a resumed training may be told anew


@dataclass(frozen=True)
class Plan:
    """What the arguments ask for: with the images, all that makes a run."""

    model: str
    backbone: str
    weights: str
    recipe: Recipe


def planned(given: Given) -> Plan:
    """Return what the arguments of a new run ask for, the defaults filled in; a wrong one raises `UsageError`."""
    if "data" not in given:
        raise UsageError(
            "no --data",
            expected="a folder of images",
            fix="finedge data render DIR makes one to try with",
        )
    recipe = read_recipe(given.get("recipe", "common"), **_recipe_options(given))
    recipe = override(recipe, options={**recipe.options, **parse_options(given.get("option", ()))})
    plan = Plan(
        given.get("model", "cnl"),
        given.get("backbone", "efficientnet_lite0"),
        str(given.get("weights", "imagenet")),
        recipe,
    )
    model_entry(plan.model)  # before the images are looked at: a wrong argument is told at once
    backbones.entry(plan.backbone)
    return plan


def recorded_plan(record: Mapping[str, Any]) -> Plan:
    """Return what the arguments of a recorded run asked for."""
    model = record["model"]
    return Plan(model["name"], model["backbone"], model["weights"], recipe_from(record["recipe"]))


def fresh(out: Path, given: Given, *, machine: Machine) -> Trainer:
    """Return the trainer of a new run, whose folder `out` is then resumable.

    Nothing is written before data, model and recipe were accepted, and nothing that exists is
    overwritten (`UsageError`).
    """
    require_new(out)
    plan = planned(given)
    found = open_dataset(given["data"], seed=plan.recipe.seed)
    torch.manual_seed(plan.recipe.seed)
    model = _build(plan, num_classes=len(found.labels))
    images = drop_unreadable(found)
    size = plan.recipe.size
    spec = Spec(
        plan.model,
        plan.backbone,
        images.labels,
        _preprocess(plan),
        Input(size, size),
        model.outputs,
    )
    teacher = (
        _teacher(given["teacher"], spec, plan.recipe, machine=machine)
        if "teacher" in given
        else None
    )
    trainer = _trainer(
        Job(out, model, spec, plan.recipe, images, plan.weights != "none", machine, teacher)
    )
    texts = record_texts(_record(trainer.job, given, weights=plan.weights), data=images)
    machine.world.wait()  # until every process has seen that `out` was absent
    if machine.world.writer:
        begin(out, texts, save=trainer.save)
    return trainer


def resumed(out: Path, given: Given, *, machine: Machine) -> Trainer:
    """Return the trainer of the run in `out`, at its checkpoint; only what RESUMABLE names may be given anew (`UsageError`)."""
    record = read_record(out)
    _require_resumable(given, record)
    writable_place(out, option="--out")
    began = recipe_from(record["recipe"])
    settings = override(began, **_recipe_options(given))
    if settings != began:
        log.warning("the recipe changed: the result is not that of an uninterrupted run")
    spec, data = (
        Spec.from_json(record["spec"]),
        recorded_data(
            out,
            root=given.get("data"),
            exact=True,
        ),
    )
    teacher = None
    if "teacher" in record:
        path = given.get("teacher", Path(record["teacher"]["path"]))
        teacher = _teacher(
            path, spec, settings, machine=machine, digest=record["teacher"]["sha256"]
        )
    trainer = _trainer(
        Job(
            out,
            rebuild(record, path=out),
            spec,
            settings,
            data,
            record["model"]["weights"] != "none",
            machine,
            teacher,
        )
    )
    trainer.load()
    machine.world.wait()  # until every process has read what is now written
    if machine.world.writer:
        write_record(
            out,
            {
                **record,
                "recipe": settings.to_json(),
                "commands": [*record["commands"], _command(given, "--resume")],
            },
        )
    log.info("going on after epoch %d of %d", trainer.epoch, settings.epochs)
    return trainer


def _trainer(job: Job) -> Trainer:
    job.model.backbone.freeze(job.recipe.freeze)
    world = job.machine.world
    require_trainable(job.model, job.recipe, images=job.recipe.batch_size // world.size)
    where = (
        f"{world.size} processes, this one on {world.device}"
        if world.size > 1
        else str(world.device)
    )
    log.info(
        "%s on %s; %s; %s", job.spec.model, job.spec.backbone, job.spec.preprocess.describe(), where
    )
    return Trainer(job)


def _teacher(
    path: Path, spec: Spec, recipe: Recipe, *, machine: Machine, digest: str = ""
) -> Teacher:
    sides = {recipe.side(epoch) for epoch in range(recipe.epochs)}
    return open_teacher(path, spec, sides=sides, device=machine.world.device, digest=digest)


def _build(plan: Plan, *, num_classes: int) -> FineGrained:
    options = plan.recipe.options
    try:
        return build(
            plan.model,
            num_classes=num_classes,
            backbone=plan.backbone,
            weights=plan.weights,
            **options,
        )
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise UsageError(
            f"model '{plan.model}' cannot be built with the options {dict(options)}: {error}",
            fix="look at --option and [options]",
        ) from error


def _require_resumable(given: Given, record: Mapping[str, Any]) -> None:
    known = set(RESUMABLE) if "teacher" in record else set(RESUMABLE) - {"teacher"}
    fixed = sorted(set(given) - known)
    if fixed:
        flag = fixed[0].replace("_", "-")
        raise UsageError(
            f"--{flag} cannot change with --resume",
            expected=f"only {', '.join(sorted(known))}",
            fix="leave it out, or train anew",
        )


def _recipe_options(given: Given) -> dict[str, Any]:
    return {name: given[name] for name in RECIPE_OPTIONS if name in given}


def _preprocess(plan: Plan) -> Preprocess:
    how, recipe = backbones.entry(plan.backbone).preprocess, plan.recipe
    method, rule = cast(Method, recipe.method or how.method), cast(Rule, recipe.rule or how.rule)
    return replace(how, resize=recipe.resized, crop=recipe.size, method=method, rule=rule)


def _record(job: Job, given: Given, *, weights: str) -> dict[str, Any]:
    return {
        "spec": job.spec.to_json(),
        "model": {
            "name": job.spec.model,
            "backbone": job.spec.backbone,
            "weights": weights,
            "options": job.model.options,
        },
        "recipe": job.recipe.to_json(),
        "data": {
            "root": str(job.data.root.resolve()),
            "seed": job.recipe.seed,
            **job.data.to_json(),
        },
        **({"teacher": job.teacher.to_json()} if job.teacher else {}),
        "processes": job.machine.world.size,
        "commands": [_command(given)],
        "versions": {"finedge": __version__, "torch": torch.__version__},
    }


def _command(given: Given, *flags: str) -> str:
    words: list[str] = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        else:
            words += [
                word
                for one in (value if isinstance(value, tuple) else (value,))
                for word in (flag, str(one))
            ]
    return shlex.join(["finedge", "train", *words, *flags])
