"""The loop of a sweep: search, more seeds of what val chose, and the test."""

from __future__ import annotations

import logging
import time
from typing import Any

from finedge.errors import FinedgeError, SystemProblem
from finedge.train.sweep.choose import chosen_settings
from finedge.train.sweep.file import SweepFile
from finedge.train.sweep.plan import SEED, SweepRun, groups, search_runs
from finedge.train.sweep.rows import Origin, Rows, error_text, packed
from finedge.train.sweep.stage import Stage

log = logging.getLogger(__name__)


def train_missing(
    file: SweepFile, rows: Rows, stage: Stage, *, origin: Origin, retry: bool = False
) -> None:
    """Train every run that has no row.

    First the searches of all groups, then the other seeds: one seed of all families after the
    other, so that a sweep that is stopped has as many seeds of each.

    Args:
        file: the sweep.
        rows: where its rows are.
        stage: what trains a run.
        origin: what the rows record of this machine.
        retry: train again what failed.

    Raises:
        SystemProblem: the machine failed (a full disk, say). The same call again goes on.
    """
    for group in groups(file):
        for run in search_runs(file, group):
            _train(run, rows, stage, origin=origin, retry=retry)
    for seed in range(SEED + 1, SEED + file.seeds):
        for group in groups(file):
            for setting in chosen_settings(file, group, rows).values():
                _train(SweepRun(setting, seed), rows, stage, origin=origin, retry=retry)


def read_test(file: SweepFile, rows: Rows, stage: Stage, *, origin: Origin) -> None:
    """Answer on the test split with the chosen setting of every family; what is done stays.

    The choice is written first: from then on no search changes it.
    """
    for group in groups(file):
        chosen = chosen_settings(file, group, rows)
        digests = {name: setting.digest for name, setting in chosen.items()}
        rows.write_chosen(group, {**rows.read_chosen(group), **digests})
        for setting in chosen.values():
            for run in rows.finished_runs(setting, seeds=file.seeds):
                if rows.read(run, "test") is None:
                    _test(run, rows, stage, origin=origin)


def _train(run: SweepRun, rows: Rows, stage: Stage, *, origin: Origin, retry: bool) -> None:
    row = rows.read(run)
    if row is not None and not (retry and "error" in row):
        return
    log.info("training %s", run.path)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        result = stage.train(run, weights=rows.weights(run)).to_json()
    except (SystemProblem, OSError, MemoryError):
        raise  # the machine failed, not the setting: a row would keep it from being chosen
    except Exception as error:  # a row too: the sweep goes on
        log.warning("%s failed: %s", run.path, error)
        result = {"error": error_text(error)}
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    spent = {name: round(seconds, 2) for name, seconds in cost.items()}
    rows.write(run, {**result, **spent, **origin.to_json()})


def _test(run: SweepRun, rows: Rows, stage: Stage, *, origin: Origin) -> None:
    log.info("test of %s", run.path)
    try:
        answers = stage.test(run, weights=rows.weights(run))
    except (FinedgeError, OSError) as error:
        log.warning("test of %s failed: %s", run.path, error)
        return  # no row: the next call tries again
    content = {**answers.to_json(), "right": packed(answers.right), **origin.to_json()}
    rows.write(run, content, "test")


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
