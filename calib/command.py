"""`finedge calibrate`: INT8 files from training images, and confidence from held-out images."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from finedge.bundle import GOLDEN, Bundle
from finedge.confidence import KEY, STAGE
from finedge.data import NewImages
from finedge.errors import UsageError
from finedge.files import writable_place
from finedge.provenance import ACCURACY

if TYPE_CHECKING:
    from finedge.data import DataSet

log = logging.getLogger(__name__)


def calibrate(
    bundle: Positional[Path],
    *,
    data: Path,
    images: int = 256,
    method: str = "max",
    seed: int = 0,
    max_false_rejects: float = 0.05,
    new_images: NewImages = "ignore",
) -> dict[str, Any]:
    """Add the INT8 variants to a bundle, or replace them, and fit the confidence of each variant.

    Examples:
        >>> calibrate(Path("birds.finedge"), data=Path("birds"), images=256)["int8_layers"]
        {'model.int8.onnx': 54, 'model.int8.cpu.onnx': 54}

    Args:
        bundle: the bundle's folder.
        data: the images the model was trained on. INT8 takes the training split, the confidence
            the validation split; the test split is never used.
        images: how many to calibrate INT8 with, balanced over the classes.
        method: max keeps every value; percentile cuts off the largest 0.01 % of magnitudes.
        seed: chooses the images.
        max_false_rejects: the largest share of right answers that may become "unknown". A larger
            share rejects more pictures of other things.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
    """
    from finedge.calib.calibration_set import draw_sample
    from finedge.calib.int8_files import calibration_record, golden_with, int8_files, source_file
    from finedge.data.evaluation import counts
    from finedge.runtime.evaluate.labelled import bundle_dataset

    if not 0 <= max_false_rejects < 1:
        raise UsageError(
            f"--max-false-rejects {max_false_rejects}",
            expected="a share of the right answers, 0 <= share < 1",
        )
    loaded = Bundle.load(bundle)
    writable_place(loaded.path.resolve().parent, option="BUNDLE")
    dataset = bundle_dataset(loaded, data, new_images=new_images)
    sample = draw_sample(dataset, images=images, seed=seed)
    source = source_file(loaded)
    int8 = int8_files(loaded, sample, method=method)
    record = {
        "seed": seed,
        "source": source,
        "model_sha256": loaded.files[source],
        "data": counts(dataset),
        **calibration_record(sample, int8),
    }
    files = {**int8.files, GOLDEN: golden_with(loaded, int8.files)}
    written = loaded.extend(STAGE, files, record)
    log.info("%s: INT8 files of %s from %d images (%s)", bundle, source, len(sample.items), method)
    held_out = _held_out_records(written, dataset, max_false_rejects=max_false_rejects)
    written.extend(STAGE, {}, {**record, **held_out})
    return {
        "images": len(sample.items),
        "method": method,
        "files": {name: len(content) for name, content in int8.files.items()},
        "int8_layers": {name: len(report.int8) for name, report in int8.reports.items()},
        "float_layers": {name: len(report.stays_float) for name, report in int8.reports.items()},
        **held_out,
        "data": counts(dataset),
    }


def _held_out_records(
    bundle: Bundle, data: DataSet, *, max_false_rejects: float
) -> dict[str, dict[str, Any]]:
    """Return the confidence and the accuracy of each variant; none with too few held-out images."""
    from finedge.calib.confidence import fit_confidence
    from finedge.calib.held_out import SPLIT, held_out, variant_scores
    from finedge.calib.paired import accuracy_costs

    sample = held_out(data)
    if sample is None:
        return {KEY: {}, ACCURACY: {}}
    held = variant_scores(bundle, sample)
    fits = fit_confidence(held, max_false_rejects=max_false_rejects)
    costs = accuracy_costs(held.scores, held.labels, split=SPLIT)
    return {
        KEY: {variant: fit.to_json() for variant, fit in fits.items()},
        ACCURACY: {variant: asdict(cost) for variant, cost in costs.items()},
    }
