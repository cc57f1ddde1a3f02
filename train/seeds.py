"""The same training with several seeds: one run for each, and their mean and range."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from finedge.bundle import sha256
from finedge.errors import UsageError
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import finished_epochs
from finedge.train.distributed import World
from finedge.train.page import trained
from finedge.train.plan import RunPlan, planned, recorded_plan
from finedge.train.record import read_metrics
from finedge.train.request import RunOptions, TrainingRequest
from finedge.train.run import METRICS, RECORD, read_record, recorded_data
from finedge.train.session import fresh, resumed
from finedge.train.trainer import summary

log = logging.getLogger(__name__)

MAX_SEEDS = 1000  # runs: days of work even for the smallest model


def train_seeds(request: TrainingRequest, *, world: World) -> dict[str, Any]:
    """Train with `request.run.seeds` seeds, from the recipe's seed on.

    Each seed is a run `seedN` below `request.run.out`. The same call again continues where it
    stopped.

    Returns:
        {"runs": [results of single trainings], "top1": {"mean", "min", "max", "n"}}; n counts runs.

    Raises:
        UsageError: `out` is itself a run, or holds runs of other settings.
    """
    out, seeds = request.run.out, request.run.seeds
    if seeds is None or not 1 <= seeds <= MAX_SEEDS:
        raise UsageError(f"--seeds {seeds}", expected=f"1 to {MAX_SEEDS}")
    if (out / RECORD).is_file():
        expected = "a folder for several runs"
        raise UsageError(f"{out} holds a run", expected=expected, fix="choose another --out")
    first = planned(request).recipe.seed
    requests = [_with_seed(request, seed) for seed in range(first, first + seeds)]
    planned(requests[-1])  # the last seed may be too large: refused before the first is trained
    results = [train_or_continue(single, world=world) for single in requests]
    return {"runs": results, "top1": _spread([result["top1"] for result in results])}


def _with_seed(request: TrainingRequest, seed: int) -> TrainingRequest:
    run = replace(request.run, out=request.run.out / f"seed{seed}", seeds=None)
    return replace(request, run=run, recipe=replace(request.recipe, seed=seed))


def train_or_continue(request: TrainingRequest, *, world: World) -> dict[str, Any]:
    """Train one run, or the rest of it, and return its result.

    Raises:
        UsageError: the folder holds a run of other settings.
        DataError: it was trained on other images.
    """
    path = request.run.out
    if not (path / RECORD).is_file():
        trainer = fresh(request, world=world)
    else:
        record = read_record(path)
        _require_same(request, record)
        # The checkpoint decides: the metrics of an epoch are written before it.
        epochs = finished_epochs(path / CHECKPOINT)
        if epochs == record["recipe"]["epochs"]:
            log.info("%s is finished", path)
            return _finished(path, record, epochs=epochs)
        run = RunOptions(path, data=request.run.data, resume=True)
        rest = TrainingRequest(run, machine=request.machine)
        trainer = resumed(rest, world=world)
    return trained(trainer)


def _require_same(request: TrainingRequest, record: Mapping[str, Any]) -> None:
    """Refuse to continue a run that another command made.

    Its images may have moved: they are known by their content.

    Raises:
        UsageError: model, recipe, --quick, the teacher or the images are others.
    """
    path, quick, teacher = request.run.out, request.recipe.quick, request.recipe.teacher
    same = _plain(recorded_plan(record)) == _plain(planned(request))
    same &= ("quick" in record) == quick and ("teacher" in record) == (teacher is not None)
    if same and teacher is not None:
        same = sha256(teacher / CHECKPOINT) == record["teacher"]["sha256"]
    if not same:
        raise UsageError(
            f"{path} was trained with other settings",
            expected="the command that made it",
            fix="choose another --out",
        )
    root = request.run.data
    if root is not None and root.resolve() != Path(record["data"]["root"]):
        recorded_data(path, root=root, exact=True)  # refuses other images


def _finished(path: Path, record: Mapping[str, Any], *, epochs: int) -> dict[str, Any]:
    rows = read_metrics(path / METRICS, epochs=epochs)
    keep = record["recipe"].get("keep", "last")
    return summary(path, Spec.from_json(record["spec"]), rows, keep=keep)


def _plain(plan: RunPlan) -> str:
    return json.dumps(asdict(plan))  # in JSON a tuple equals the list that was read back


def _spread(accuracies: Sequence[float | None]) -> Mapping[str, Any]:
    """Return mean, min and max; all None where no val split was measured."""
    measured = [value for value in accuracies if value is not None]
    if not measured:
        return {"mean": None, "min": None, "max": None, "n": 0}
    return {
        "mean": round(sum(measured) / len(measured), 6),
        "min": min(measured),
        "max": max(measured),
        "n": len(measured),
    }
