"""Add INT8 files and the confidence of each variant to a bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from finedge.bundle import GOLDEN, Bundle
from finedge.calib.compose import Calibration, CalibrationOptions, make_int8
from finedge.calib.held_out.confidence import fit_confidence
from finedge.calib.held_out.exits import fit_exits
from finedge.calib.held_out.images import SPLIT, held_out, variant_scores
from finedge.calib.held_out.label_tree import fit_label_tree
from finedge.calib.held_out.paired import accuracy_costs
from finedge.calib.int8_files import golden_with, source_file, trial_bundle
from finedge.calib.int8_segments import int8_segments
from finedge.calib.options import ConfidenceOptions
from finedge.calib.record import Int8Record, library_versions
from finedge.calib.step_times import StepTimes
from finedge.confidence import KEY, STAGE
from finedge.data import DataSet, NewImages
from finedge.data.evaluation import counts
from finedge.early_exit import KEY as EXITS
from finedge.files import writable_place
from finedge.label_tree import KEY as LABEL_TREE
from finedge.label_tree import LabelTree, read_label_tree
from finedge.provenance import ACCURACY
from finedge.runtime.evaluate.labelled import bundle_dataset

log = logging.getLogger(__name__)

DEFAULT_OPTIONS = CalibrationOptions()
DEFAULT_CONFIDENCE = ConfidenceOptions()


def calibrate_bundle(
    bundle: Path,
    *,
    data: Path,
    options: CalibrationOptions = DEFAULT_OPTIONS,
    confidence: ConfidenceOptions = DEFAULT_CONFIDENCE,
    new_images: NewImages = "ignore",
) -> dict[str, Any]:
    """Add the INT8 variants to a bundle, or replace them; return what `finedge calibrate` prints.

    Args:
        bundle: the bundle's folder.
        data: the images the model was trained on. The test split is never used.
        options: how the INT8 files are made.
        confidence: how the confidence is fitted.
        new_images: where images go that the stored split does not know.

    Raises:
        FinedgeError: of any kind, by the step that fails.
    """
    loaded = Bundle.load(bundle)
    groups = label_tree_data(loaded, confidence.label_tree)
    writable_place(loaded.path.resolve().parent, option="BUNDLE")
    dataset = bundle_dataset(loaded, data, new_images=new_images)
    times = StepTimes()
    made = make_int8(loaded, dataset, options=options, times=times)
    files = made.int8.files
    with times.step("segments"):
        cuts = int8_segments(files, made.samples.calibration, loaded)
    with times.step("held-out images"), trial_bundle(loaded, files) as trial:
        golden = golden_with(loaded, trial, files=files)
        held_out: dict[str, Any] = _held_out_records(
            trial, dataset, options=confidence, groups=groups
        )
    record = replace(_record(loaded, made), data=counts(dataset), seconds=times.seconds, **held_out)
    loaded.extend(STAGE, {**files, **cuts, GOLDEN: golden}, record.to_json())
    log.info("%s: INT8 files of %s from %d images", bundle, record.source, made.int8.images)
    return _result(record, made)


def _record(bundle: Bundle, made: Calibration) -> Int8Record:
    source, int8 = source_file(bundle), made.int8
    return Int8Record(
        seed=made.samples.seed,
        source=source,
        model_sha256=bundle.files[source],
        images_sha256=made.samples.calibration.digests[: int8.images],
        method=int8.plan.method,
        ranges={name: (r.low, r.high) for name, r in int8.table.ranges.items()},
        placements={name: report.to_json() for name, report in int8.reports.items()},
        plan=int8.plan.to_json(),
        decision=made.decision,
        search=made.search,
        qat=made.qat,
        versions=library_versions(),
    )


def _result(record: Int8Record, made: Calibration) -> dict[str, Any]:
    reports = made.int8.reports.items()
    optional = {"search": record.search, "qat": record.qat}
    return {
        "images": len(record.images_sha256),
        "method": record.method,
        "decision": {k: v for k, v in asdict(record.decision).items() if k != "images_sha256"},
        "files": {name: len(content) for name, content in made.int8.files.items()},
        "int8_layers": {name: len(report.int8) for name, report in reports},
        "float_layers": {name: len(report.stays_float) for name, report in reports},
        **{name: dict(value) for name, value in optional.items() if value},
        KEY: dict(record.confidence),
        ACCURACY: dict(record.accuracy),
        **({EXITS: dict(record.exits)} if record.exits else {}),
        **({LABEL_TREE: record.label_tree["rules"]} if record.label_tree else {}),
        "data": dict(record.data),
        "seconds": dict(record.seconds),
    }


def label_tree_data(bundle: Bundle, file: Path | None) -> Mapping[str, Any]:
    """Return the plain data of the label tree: of the file, else the bundle's; both are checked.

    Raises:
        DataError: the file is no label tree of this bundle.
    """
    data = bundle.calibration.label_tree.tree if file is None else read_label_tree(file)
    if file is not None or data:
        LabelTree.parse(data, bundle.spec.labels, name=str(file or bundle.path))
    return dict(data)


def _held_out_records(
    trial: Bundle, data: DataSet, *, options: ConfidenceOptions, groups: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return what held-out images say of each variant, by field of the record.

    It is empty with too few held-out images.
    """
    sample = held_out(data)
    if sample is None:
        return {}
    held = variant_scores(trial, sample)
    fits = fit_confidence(held, max_false_rejects=options.max_false_rejects)
    costs = accuracy_costs(held.scores, held.labels, split=SPLIT)
    exits = [one.output for one in trial.export.segments.exits]
    left = fit_exits(held, exits, loss=options.exit_loss)
    tree = {}
    if groups:
        parsed = LabelTree.parse(groups, trial.spec.labels, name="the label tree")
        rules = fit_label_tree(held, parsed, confidence=fits)
        tree = {"tree": groups, "rules": {v: tuple(map(asdict, r)) for v, r in rules.items()}}
    return {
        KEY: {variant: fit.to_json() for variant, fit in fits.items()},
        ACCURACY: {variant: asdict(cost) for variant, cost in costs.items()},
        EXITS: {variant: tuple(map(asdict, fits)) for variant, fits in left.items()},
        LABEL_TREE: tree,
    }
