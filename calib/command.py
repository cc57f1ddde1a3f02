"""`finedge calibrate`: INT8 files from training images, and confidence from held-out images."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.bundle import GOLDEN, Bundle
from finedge.calib.options import ConfidenceOptions, Int8Options, QatOptions
from finedge.confidence import KEY, STAGE
from finedge.data import NewImages
from finedge.files import writable_place
from finedge.provenance import ACCURACY, DecisionRecord

if TYPE_CHECKING:
    import onnx

    from finedge.calib.decision_set import Samples
    from finedge.calib.int8_files import CalibratedModel, Int8Files
    from finedge.calib.plan import QuantizationPlan
    from finedge.calib.record import Int8Record
    from finedge.data import DataSet
    from finedge.train.run import Run

log = logging.getLogger(__name__)

DEFAULT_INT8 = Int8Options()
DEFAULT_CONFIDENCE = ConfidenceOptions()
NO_QAT = QatOptions()


def calibrate(
    bundle: Positional[Path],
    *,
    data: Path,
    int8: OmitArgPrefixes[Int8Options] = DEFAULT_INT8,
    confidence: OmitArgPrefixes[ConfidenceOptions] = DEFAULT_CONFIDENCE,
    qat: OmitArgPrefixes[QatOptions] = NO_QAT,
    new_images: NewImages = "ignore",
) -> dict[str, Any]:
    """Add the INT8 variants to a bundle, or replace them, and fit the confidence of each variant.

    Examples:
        >>> calibrate(Path("birds.finedge"), data=Path("birds"))["int8_layers"]
        {'model.int8.onnx': 54, 'model.int8.cpu.onnx': 54}

    Args:
        bundle: the bundle's folder.
        data: the images the model was trained on. INT8 takes the training split, the confidence
            the validation split; the test split is never used.
        int8: how the INT8 files are made.
        confidence: how the confidence is fitted.
        qat: quantization-aware training before the calibration.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
    """
    from finedge.calib.decision_set import draw_samples
    from finedge.calib.int8_files import float_model, golden_with, trial_bundle
    from finedge.data.evaluation import counts
    from finedge.runtime.evaluate.labelled import bundle_dataset

    loaded = Bundle.load(bundle)
    writable_place(loaded.path.resolve().parent, option="BUNDLE")
    run = _open_run(loaded, qat)
    dataset = bundle_dataset(loaded, data, new_images=new_images)
    samples = draw_samples(
        dataset,
        images=int8.images,
        curve_images=max(int8.sizes),
        decision_images=int8.decision_images if int8.decides else 0,
        seed=int8.seed,
    )
    model = float_model(loaded)
    made, decision = _int8_files(model, bundle=loaded, samples=samples, options=int8)
    training: dict[str, Any] = {}
    if run is not None:
        from finedge.calib.fine_tuned import check_fine_tuned, fine_tuned_model

        tuned = fine_tuned_model(loaded, made, run=run, data=dataset, samples=samples, options=qat)
        made, decision = _int8_files(tuned.model, bundle=loaded, samples=samples, options=int8)
        training = check_fine_tuned(tuned, made, samples, preprocess=loaded.spec.preprocess)
    with trial_bundle(loaded, made.files) as trial:
        golden = golden_with(loaded, trial, files=made.files)
        held_out = _held_out_records(trial, dataset, options=confidence)
    record = replace(
        _record(loaded, samples, made),
        data=counts(dataset),
        decision=decision,
        qat=training,
        **held_out,
    )
    loaded.extend(STAGE, {**made.files, GOLDEN: golden}, record.to_json())
    log.info("%s: INT8 files of %s from %d images", bundle, record.source, made.images)
    return _result(record, made)


def _open_run(bundle: Bundle, options: QatOptions) -> Run | None:
    """Return the run of `--qat`, checked before any image is read; None without it."""
    if options.qat is None:
        return None
    from finedge.calib.fine_tuned import open_run

    return open_run(bundle, options.qat)


def _int8_files(
    model: onnx.ModelProto, *, bundle: Bundle, samples: Samples, options: Int8Options
) -> tuple[Int8Files, DecisionRecord]:
    """Run the pass, decide, and quantize: each part is a function of the results before it."""
    from finedge.calib.int8_files import calibrate_model, quantize

    calibrated = calibrate_model(
        model,
        bundle.spec,
        sample=samples.calibration,
        methods=options.methods,
        sizes=options.sizes,
    )
    plan, record = _decide(calibrated, samples, options=options)
    return quantize(calibrated, plan), record


def _decide(
    calibrated: CalibratedModel, samples: Samples, *, options: Int8Options
) -> tuple[QuantizationPlan, DecisionRecord]:
    """Choose the method and measure the curve on the decision set, where an option asks for it."""
    from finedge.calib.choose import choose_method, decision_record, measure_curve
    from finedge.calib.decision import Decision
    from finedge.calib.decision_set import load_decision_images, too_few

    if not options.decides:
        return options.plan, DecisionRecord()
    if samples.decision is None:
        return options.plan, DecisionRecord(too_few(options.plan.method))
    images = load_decision_images(samples.decision, calibrated.spec.preprocess)
    decision = Decision(calibrated.model, calibrated.spec, images)
    choice = choose_method(calibrated, decision, plan=options.plan)
    log.info("method %s: %s", choice.plan.method, choice.reason)
    curve = measure_curve(calibrated, decision, plan=choice.plan)
    record = decision_record(
        choice,
        images=calibrated.tables.images,
        curve=curve,
        digests=samples.decision.digests,
    )
    return choice.plan, record


def _record(bundle: Bundle, samples: Samples, made: Int8Files) -> Int8Record:
    from finedge.calib.int8_files import source_file
    from finedge.calib.record import Int8Record, library_versions

    source = source_file(bundle)
    return Int8Record(
        seed=samples.seed,
        source=source,
        model_sha256=bundle.files[source],
        images_sha256=samples.calibration.digests[: made.images],
        method=made.plan.method,
        ranges={name: (r.low, r.high) for name, r in made.table.ranges.items()},
        placements={name: report.to_json() for name, report in made.reports.items()},
        plan=made.plan.to_json(),
        versions=library_versions(),
    )


def _result(record: Int8Record, made: Int8Files) -> dict[str, Any]:
    return {
        "images": len(record.images_sha256),
        "method": record.method,
        "decision": _shown(record.decision),
        "files": {name: len(content) for name, content in made.files.items()},
        "int8_layers": {name: len(report.int8) for name, report in made.reports.items()},
        "float_layers": {name: len(report.stays_float) for name, report in made.reports.items()},
        **({"qat": dict(record.qat)} if record.qat else {}),
        KEY: dict(record.confidence),
        ACCURACY: dict(record.accuracy),
        "data": dict(record.data),
    }


def _held_out_records(
    trial: Bundle, data: DataSet, *, options: ConfidenceOptions
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the confidence and the accuracy of each variant; none with too few held-out images."""
    from finedge.calib.confidence import fit_confidence
    from finedge.calib.held_out import SPLIT, held_out, variant_scores
    from finedge.calib.paired import accuracy_costs

    sample = held_out(data)
    if sample is None:
        return {KEY: {}, ACCURACY: {}}
    held = variant_scores(trial, sample)
    fits = fit_confidence(held, max_false_rejects=options.max_false_rejects)
    costs = accuracy_costs(held.scores, held.labels, split=SPLIT)
    return {
        KEY: {variant: fit.to_json() for variant, fit in fits.items()},
        ACCURACY: {variant: asdict(cost) for variant, cost in costs.items()},
    }


def _shown(decision: DecisionRecord) -> dict[str, Any]:
    """Return a decision without the digests of its images."""
    return {name: value for name, value in asdict(decision).items() if name != "images_sha256"}
