"""The loop of a sweep: search, more seeds of what val chose, and the test."""

from __future__ import annotations

import logging
import platform
import time
from typing import Any

import torch

from finedge import __version__
from finedge.errors import FinedgeError
from finedge.train.sweep.choose import chosen_settings
from finedge.train.sweep.file import SweepFile
from finedge.train.sweep.plan import SEED, SweepRun, groups, search_runs
from finedge.train.sweep.rows import Rows, packed
from finedge.train.sweep.stage import Stage

log = logging.getLogger(__name__)


def train_missing(file: SweepFile, rows: Rows, stage: Stage, *, retry: bool = False) -> None:
    """Train every run that has no row.

    First the searches of all groups, then the other seeds: one seed of all families after the
    other, so that a sweep that is stopped has as many seeds of each.

    Args:
        file: the sweep.
        rows: where its rows are.
        stage: what trains a run.
        retry: train again what failed.
    """
    for group in groups(file):
        for run in search_runs(file, group):
            _train(run, rows, stage, retry=retry)
    for seed in range(SEED + 1, SEED + file.seeds):
        for group in groups(file):
            for setting in chosen_settings(file, group, rows).values():
                _train(SweepRun(setting, seed), rows, stage, retry=retry)


def read_test(file: SweepFile, rows: Rows, stage: Stage) -> None:
    """Answer on the test split with the chosen setting of every family; what is done stays.

    The choice is written first: from then on no search changes it.
    """
    for group in groups(file):
        chosen = chosen_settings(file, group, rows)
        digests = {name: setting.digest for name, setting in chosen.items()}
        rows.write_chosen(group, {**rows.read_chosen(group), **digests})
        for setting in chosen.values():
            for run in finished_runs(file, SweepRun(setting, SEED), rows):
                if rows.read(run, "test") is None:
                    _test(run, rows, stage)


def finished_runs(file: SweepFile, first: SweepRun, rows: Rows) -> list[SweepRun]:
    """Return the runs of a setting that are trained, by seed."""
    seeds = range(SEED, SEED + file.seeds)
    runs = (SweepRun(first.setting, seed) for seed in seeds)
    return [run for run in runs if rows.finished(run)]


def _train(run: SweepRun, rows: Rows, stage: Stage, *, retry: bool) -> None:
    row = rows.read(run)
    if row is not None and not (retry and "error" in row):
        return
    log.info("training %s", run.path)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        result = stage.train(run, weights=rows.weights(run)).to_json()
    except Exception as error:  # a row too: the sweep goes on
        log.warning("%s failed: %s", run.path, error)
        result = {"error": _text(error)}
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    spent = {name: round(seconds, 2) for name, seconds in cost.items()}
    rows.write(run, {**result, **spent, "versions": versions()})


def _test(run: SweepRun, rows: Rows, stage: Stage) -> None:
    log.info("test of %s", run.path)
    try:
        answers = stage.test(run, weights=rows.weights(run))
    except (FinedgeError, OSError) as error:
        log.warning("test of %s failed: %s", run.path, error)
        return  # no row: the next call tries again
    content = {**answers.to_json(), "right": packed(answers.right), "versions": versions()}
    rows.write(run, content, "test")


def versions() -> dict[str, str]:
    """Return the versions that a row records."""
    return {"finedge": __version__, "torch": torch.__version__, "machine": platform.machine()}


def _text(error: Exception) -> str:
    return error.what if isinstance(error, FinedgeError) else f"{type(error).__name__}: {error}"


def overview(file: SweepFile, rows: Rows) -> dict[str, Any]:
    """Return what a sweep trains, and how much of it is there."""
    listed = []
    for group in groups(file):
        runs = search_runs(file, group)
        families = {run.setting.family for run in runs}
        listed.append(
            {
                **vars(group),
                "families": len(families),
                "settings": len(runs) // max(1, len(families)),
                "search": len(runs),
                "more_seeds": len(families) * (file.seeds - 1),
                "finished": sum(rows.read(run) is not None for run in runs),
            }
        )
    total = sum(group["search"] + group["more_seeds"] for group in listed)
    return {"stage": file.stage, "groups": listed, "runs": total}
