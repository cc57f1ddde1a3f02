"""The same training with several seeds: one run each, their mean and range."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finedge.errors import UsageError
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import finished_epochs
from finedge.train.record import read_metrics
from finedge.train.run import METRICS, RECORD, read_record
from finedge.train.session import Given, Plan, fresh, planned, recorded_plan, resumed
from finedge.train.trainer import Machine, summary

log = logging.getLogger(__name__)

MOST_SEEDS = 1000  # runs: days of work even for the smallest model


def train_seeds(out: Path, given: Given, *, seeds: int, machine: Machine) -> dict[str, Any]:
    """Train with the seeds from the recipe's on, each into a run of its own below `out`; the same call again goes on where it stopped.

    Args:
        out: folder of the runs, `seedN` each.
        given: the arguments of `finedge train`.
        seeds: how many, at least 1.
        machine: where.

    Returns:
        {"runs": [what a single training returns], "top1": {"mean", "min", "max", "n"}}; n counts runs.

    Raises:
        UsageError: `out` is itself a run, or holds runs of other settings.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise UsageError(f"--seeds {seeds}", expected=f"1 to {MOST_SEEDS}")
    if (out / RECORD).is_file():
        raise UsageError(
            f"{out} holds a run", expected="a folder for several runs", fix="choose another --out"
        )
    first = planned(given).recipe.seed
    planned({**given, "seed": first + seeds - 1})  # the last one too, before the first is trained
    results = []
    for seed in range(first, first + seeds):
        path = out / f"seed{seed}"
        results.append(_train(path, {**given, "out": path, "seed": seed}, machine=machine))
    return {"runs": results, "top1": _spread([result["top1"] for result in results])}


def _train(path: Path, given: Given, *, machine: Machine) -> dict[str, Any]:
    """Train one run, or what is left of it, and return its result."""
    if not (path / RECORD).is_file():
        trainer = fresh(path, given, machine=machine)
    else:
        record = read_record(path)
        if _plain(recorded_plan(record)) != _plain(planned(given)):
            raise UsageError(
                f"{path} was trained with other settings",
                expected="the command it was made with",
                fix="choose another --out",
            )
        # The checkpoint decides: the metrics of an epoch are written before it.
        epochs = finished_epochs(path / CHECKPOINT)
        if epochs == record["recipe"]["epochs"]:
            log.info("%s is finished", path)
            return summary(
                path,
                Spec.from_json(record["spec"]),
                read_metrics(path / METRICS, epochs=epochs),
            )
        trainer = resumed(path, {"out": path}, machine=machine)
    trainer.run()
    return trainer.result()


def _plain(plan: Plan) -> str:
    return json.dumps(asdict(plan))  # where a tuple equals the list that was read back


def _spread(top1: Sequence[float | None]) -> Mapping[str, Any]:
    """Return mean, min and max; None each where there was no val split to measure on."""
    known = [value for value in top1 if value is not None]
    if not known:
        return {"mean": None, "min": None, "max": None, "n": 0}
    return {
        "mean": round(sum(known) / len(known), 6),
        "min": min(known),
        "max": max(known),
        "n": len(known),
    }
