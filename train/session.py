"""Starting a training: a new run, or a run from its checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finedge import __version__
from finedge.data import drop_unreadable, open_dataset
from finedge.errors import UsageError
from finedge.files import writable_place
from finedge.spec import Input, Spec
from finedge.train.distill import Teacher, open_teacher
from finedge.train.distributed import World
from finedge.train.folder import begin, require_new
from finedge.train.plan import RunPlan, planned
from finedge.train.quick.trainer import QuickTrainer
from finedge.train.recipe import Recipe, recipe_from
from finedge.train.recipe_change import override
from finedge.train.request import TrainingRequest
from finedge.train.run import read_record, rebuild, record_texts, recorded_data, write_record
from finedge.train.stopping import require_val
from finedge.train.trainable import require_trainable
from finedge.train.trainer import Job, Trainer
from finedge.train.writers import require_writer

log = logging.getLogger(__name__)


def fresh(request: TrainingRequest, *, world: World) -> Trainer:
    """Return the trainer of a new run, whose folder can then be resumed.

    Nothing is written before data, model and recipe were accepted. Nothing that exists is
    overwritten.

    Raises:
        UsageError: the folder exists, or an option is wrong.
        DataError: the images cannot be used.
    """
    out = request.run.out
    require_new(out)
    _require_machine(request, quick=request.recipe.quick)
    plan = planned(request)
    assert request.run.data is not None  # `planned` refuses it
    if request.recipe.quick and not plan.pretrained and world.writer:
        log.warning(
            "--quick with --weights none: the frozen backbone is random, and its features tell "
            "classes hardly apart; give --weights imagenet, a file or a run"
        )
    images = open_dataset(request.run.data, seed=plan.recipe.seed, val=plan.recipe.val)
    torch.manual_seed(plan.recipe.seed)
    model = plan.build(labels=images.labels)
    images = drop_unreadable(images)
    spec = run_spec(plan, images.labels, outputs=model.outputs)
    path = request.recipe.teacher
    teacher = _teacher(path, spec, plan.recipe, device=world.device) if path else None
    pretrained = plan.pretrained
    job = Job(out, model, spec, plan.recipe, images, pretrained, world, request.machine, teacher)
    maps = (request.machine.maps or out.parent / "feature_maps") if request.recipe.quick else None
    trainer = _trainer(job, maps=maps)
    record = run_record(trainer.job, weights=plan.weights, command=request.command())
    if maps:
        record["quick"] = {"maps": str(maps.resolve())}
    texts = record_texts(record, data=images)
    world.wait()  # until every process has seen that `out` was absent
    if world.writer:
        begin(out, texts, save=trainer.save)
    return trainer


def resumed(request: TrainingRequest, *, world: World) -> Trainer:
    """Return the trainer of the run in `request.run.out`, at its checkpoint.

    Raises:
        UsageError: an option that `RESUMABLE` does not name was given, or fewer epochs than are
            finished.
        DataError: no run there, or the run is damaged.
    """
    out = request.run.out
    record = read_record(out)
    request.require_resumable(distilled="teacher" in record)
    _require_machine(request, quick="quick" in record)
    writable_place(out, option="--out")
    recipe = _changed_recipe(recipe_from(record["recipe"]), request)
    spec = Spec.from_json(record["spec"])
    images = recorded_data(out, root=request.run.data, exact=True)
    teacher = _recorded_teacher(record, request, spec=spec, recipe=recipe, world=world)
    pretrained = record["model"]["weights"] != "none"
    model = rebuild(record, path=out)
    job = Job(out, model, spec, recipe, images, pretrained, world, request.machine, teacher)
    maps = request.machine.maps or Path(record["quick"]["maps"]) if "quick" in record else None
    trainer = _trainer(job, maps=maps)
    trainer.load()
    if recipe.epochs < trainer.epoch:
        raise UsageError(
            f"--epochs {recipe.epochs}: {out} has {trainer.epoch} finished epochs",
            expected=f"at least {trainer.epoch}",
        )
    world.wait()  # until every process has read what is now written
    if world.writer:
        commands = [*record["commands"], request.command()]
        write_record(out, {**record, "recipe": recipe.to_json(), "commands": commands})
    log.info("resuming after epoch %d of %d", trainer.epoch, recipe.epochs)
    return trainer


def _require_machine(request: TrainingRequest, *, quick: bool) -> None:
    """Refuse what would stop the training after its run was begun.

    Raises:
        UsageError: --maps without --quick.
        SystemProblem: the package of --log-to is missing.
    """
    if request.machine.maps and not quick:
        raise UsageError("--maps without --quick", expected="feature maps to keep there")
    if request.machine.log_to:
        require_writer(request.machine.log_to)


def _changed_recipe(recipe: Recipe, request: TrainingRequest) -> Recipe:
    changed = override(recipe, request.recipe)
    if changed != recipe:
        log.warning("the recipe changed: the result is not that of an uninterrupted run")
    return changed


def _trainer(job: Job, *, maps: Path | None) -> Trainer:
    require_val(job.recipe, job.data)
    job.model.backbone.freeze(job.recipe.freeze)
    world = job.world
    require_trainable(job.model, job.recipe, images=job.recipe.batch_size // world.size)
    place = str(world.device)
    if world.size > 1:
        place = f"{world.size} processes, this one on {world.device}"
    spec = job.spec
    log.info("%s on %s; %s; %s", spec.model, spec.backbone, spec.preprocess.describe(), place)
    return QuickTrainer(job, maps=maps) if maps else Trainer(job)


def run_spec(plan: RunPlan, labels: tuple[str, ...], *, outputs: Any) -> Spec:
    """Return the spec of a run: what it reads and answers."""
    size = plan.recipe.size
    return Spec(plan.model, plan.backbone, labels, plan.preprocess, Input(size, size), outputs)


def _recorded_teacher(
    record: Mapping[str, Any],
    request: TrainingRequest,
    *,
    spec: Spec,
    recipe: Recipe,
    world: World,
) -> Teacher | None:
    if "teacher" not in record:
        return None
    path = request.recipe.teacher or Path(record["teacher"]["path"])
    digest = record["teacher"]["sha256"]
    return _teacher(path, spec, recipe, device=world.device, digest=digest)


def _teacher(
    path: Path, spec: Spec, recipe: Recipe, *, device: torch.device, digest: str = ""
) -> Teacher:
    sides = {recipe.side(epoch) for epoch in range(recipe.epochs)}
    return open_teacher(path, spec, sides=sides, device=device, digest=digest)


def run_record(job: Job, *, weights: str, command: str) -> dict[str, Any]:
    """Return what run.json says of a training that `command` started."""
    model = {
        "name": job.spec.model,
        "backbone": job.spec.backbone,
        "weights": weights,
        "options": job.model.options,
    }
    root = str(job.data.root.resolve())
    return {
        "spec": job.spec.to_json(),
        "model": model,
        "recipe": job.recipe.to_json(),
        "data": {"root": root, "seed": job.recipe.seed, **job.data.to_json()},
        **({"teacher": job.teacher.to_json()} if job.teacher else {}),
        "processes": job.world.size,
        "commands": [command],
        "versions": {"finedge": __version__, "torch": torch.__version__},
    }
