"""`finedge calibrate`: INT8 files from training images, and confidence from held-out images."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.bundle import GOLDEN, Bundle
from finedge.calib.options import ConfidenceOptions, Int8Options
from finedge.calib.search.options import SearchOptions
from finedge.confidence import STAGE
from finedge.data import NewImages
from finedge.files import writable_place

if TYPE_CHECKING:
    from finedge.calib.decision_set import Samples
    from finedge.calib.int8_files import Int8Files
    from finedge.calib.record import Int8Record
    from finedge.calib.search.choose import Choice
    from finedge.data import DataSet

log = logging.getLogger(__name__)

DEFAULT_INT8 = Int8Options()
DEFAULT_SEARCH = SearchOptions()
DEFAULT_CONFIDENCE = ConfidenceOptions()


def calibrate(
    bundle: Positional[Path],
    *,
    data: Path,
    int8: OmitArgPrefixes[Int8Options] = DEFAULT_INT8,
    search: OmitArgPrefixes[SearchOptions] = DEFAULT_SEARCH,
    confidence: OmitArgPrefixes[ConfidenceOptions] = DEFAULT_CONFIDENCE,
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
        search: which layers stay in float.
        confidence: how the confidence is fitted.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
    """
    from finedge.calib.decision_set import draw_samples
    from finedge.calib.int8_files import golden_with, trial_bundle
    from finedge.data.evaluation import counts
    from finedge.runtime.evaluate.labelled import bundle_dataset

    loaded = Bundle.load(bundle)
    writable_place(loaded.path.resolve().parent, option="BUNDLE")
    dataset = bundle_dataset(loaded, data, new_images=new_images)
    decision_images = int8.decision_images if int8.decides or search.decides else 0
    samples = draw_samples(
        dataset, images=int8.images, decision_images=decision_images, seed=int8.seed
    )
    made, choice = _int8_files(loaded, samples, options=int8, search=search)
    with trial_bundle(loaded, made.files) as trial:
        golden = golden_with(loaded, trial, files=made.files)
        fits = _confidence(trial, dataset, options=confidence)
    record = replace(
        _record(loaded, samples, made),
        data=counts(dataset),
        confidence=fits,
        search=choice.record,
    )
    loaded.extend(STAGE, {**made.files, GOLDEN: golden}, record.to_json())
    images = len(samples.calibration.items)
    log.info("%s: INT8 files of %s from %d images", bundle, record.source, images)
    return _result(record, made)


def _int8_files(
    bundle: Bundle, samples: Samples, *, options: Int8Options, search: SearchOptions
) -> tuple[Int8Files, Choice]:
    """Run the pass, decide, and quantize: each part is a function of the results before it."""
    from finedge.calib.int8_files import calibrate_model, float_model, quantize
    from finedge.calib.search.choose import choose_plan

    model = float_model(bundle)
    calibrated = calibrate_model(
        model, bundle.spec, sample=samples.calibration, methods=options.methods
    )
    choice = choose_plan(
        bundle, calibrated, options.plan, decision=samples.decision, options=search
    )
    return quantize(calibrated, choice.plan), choice


def _record(bundle: Bundle, samples: Samples, made: Int8Files) -> Int8Record:
    from finedge.calib.int8_files import source_file
    from finedge.calib.record import Int8Record, library_versions

    source = source_file(bundle)
    return Int8Record(
        seed=samples.seed,
        source=source,
        model_sha256=bundle.files[source],
        images_sha256=samples.calibration.digests,
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
        "files": {name: len(content) for name, content in made.files.items()},
        "int8_layers": {name: len(report.int8) for name, report in made.reports.items()},
        "float_layers": {name: len(report.stays_float) for name, report in made.reports.items()},
        **({"search": dict(record.search)} if record.search else {}),
        "confidence": dict(record.confidence),
        "data": dict(record.data),
    }


def _confidence(
    trial: Bundle, data: DataSet, *, options: ConfidenceOptions
) -> dict[str, dict[str, Any]]:
    """Return the confidence record of each variant; none with too few held-out images."""
    from finedge.calib.confidence import fit_confidence
    from finedge.calib.held_out import held_out

    sample = held_out(data)
    if sample is None:
        return {}
    fits = fit_confidence(trial, sample, max_false_rejects=options.max_false_rejects)
    return {variant: fit.to_json() for variant, fit in fits.items()}
