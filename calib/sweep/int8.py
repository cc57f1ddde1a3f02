"""INT8 of what val chose: every tested run, exported, calibrated, and tested."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finedge.bundle import CPU_FILE, MANIFEST, Bundle
from finedge.calib.calibrate import calibrate_bundle
from finedge.calib.sweep.times import cpu_times
from finedge.errors import FinedgeError
from finedge.export.make import make_bundle
from finedge.runtime.backend import SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.evaluate.predict import predict
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.train.sweep.file import SweepFile
from finedge.train.sweep.plan import SEED, Group, SweepRun, groups, settings
from finedge.train.sweep.rows import Answers, Origin, Rows, error_text, packed
from finedge.train.sweep.stage import Stage

log = logging.getLogger(__name__)

BACKEND = OnnxRuntimeBackend(SessionOptions(threads=1))


def measure_int8(
    file: SweepFile,
    rows: Rows,
    stage: Stage,
    *,
    data: Mapping[str, Path],
    origin: Origin,
    only: Sequence[str] = (),
    retry: bool = False,
) -> None:
    """Measure what has no row: accuracy of each bundle, then the times of each group.

    Only what was tested is measured: its choice is kept, so that INT8 chooses nothing.

    Args:
        file: the sweep.
        rows: where its rows are.
        stage: what trained its runs.
        data: {name: folder of images}.
        origin: what the rows record of this machine.
        only: the families whose accuracy is measured; none for all. Times are those of all.
        retry: measure again what failed.
    """
    work = file.only(only)
    for group in groups(work):
        for run in tested_runs(work, group, rows):
            row = rows.read(run, "int8")
            if row is None or (retry and "error" in row):
                _measure(run, rows, stage, data=data[group.data], origin=origin)
        first = [run for run in tested_runs(file, group, rows) if run.seed == SEED]
        _time(group, first, rows, origin=origin)


def tested_runs(file: SweepFile, group: Group, rows: Rows) -> list[SweepRun]:
    """Return the runs of each kept choice that answered on test, one seed after the other."""
    kept = rows.read_chosen(group)
    chosen = [
        setting
        for name, candidates in settings(file, group).items()
        for setting in candidates
        if setting.digest == kept.get(name)
    ]
    seeds = range(SEED, SEED + file.seeds)
    runs = [SweepRun(setting, seed) for seed in seeds for setting in chosen]
    tested = [run for run in runs if rows.read(run, "test") is not None]
    if not tested:
        log.warning("%s: nothing was tested yet; --test comes first", group.folder)
    return tested


def _measure(run: SweepRun, rows: Rows, stage: Stage, *, data: Path, origin: Origin) -> None:
    log.info("INT8 of %s", run.path)
    try:
        content = _answers(_bundle(run, rows, stage, data), data)
    except Exception as error:  # a row too: the others go on
        log.warning("INT8 of %s failed: %s", run.path, error)
        content = {"error": error_text(error)}
    rows.write(run, {**content, **origin.to_json()}, "int8")


def _bundle(run: SweepRun, rows: Rows, stage: Stage, data: Path) -> Bundle:
    """Return the calibrated bundle of a run; the steps that are done stay."""
    place = rows.bundle(run)
    if not (place / MANIFEST).is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(rows.spare, ignore_errors=True)  # a killed sweep left it
        whole = stage.whole(run, weights=rows.weights(run), spare=rows.spare)
        make_bundle(whole, out=place, data=data)
        shutil.rmtree(rows.spare, ignore_errors=True)
    if CPU_FILE not in Bundle.load(place).files:
        calibrate_bundle(place, data=data)
    return Bundle.load(place)


def _answers(bundle: Bundle, data: Path) -> dict[str, Any]:
    """Return what INT8 has right on the test split, as this CPU computes it."""
    items = evaluated_images(bundle, SplitOptions(data=data)).items
    with Classifier(bundle, BACKEND.open(bundle, variant="int8"), "int8") as classifier:
        right = predict(classifier, items).correct
        info = classifier.session.info
    made = {"file": info.file, "precision": info.precision}
    return {**Answers(right).to_json(), "right": packed(right), **made}


def _time(group: Group, runs: list[SweepRun], rows: Rows, *, origin: Origin) -> None:
    """Time all bundles of a group together, where one of them has no time."""
    bundles = {run.path.name: rows.bundle(run) for run in runs if rows.finished(run, "int8")}
    if bundles.keys() <= rows.read_times(group).keys():
        return
    try:
        times = cpu_times({name: Bundle.load(path) for name, path in bundles.items()}, BACKEND)
    except (FinedgeError, OSError) as error:
        log.warning("times of %s: %s", group.folder, error)
        return  # no file: the next call tries again
    rows.write_times(group, times, origin)
