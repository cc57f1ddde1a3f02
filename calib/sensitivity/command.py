"""`finedge sensitivity`: what INT8 of each layer alone costs, ranked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from finedge.errors import DataError, UsageError

if TYPE_CHECKING:
    from finedge.calib.decision.decision_set import Samples

log = logging.getLogger(__name__)

# The most sensitive layer of 20 poisoned models was the right one with 8 images already.
IMAGES = 64


def sensitivity(
    bundle: Positional[Path],
    *,
    data: Path,
    images: int = IMAGES,
    calibration_images: int = 256,
    method: str = "max",
    seed: int = 0,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Rank the layers of a bundle by what INT8 of each alone costs.

    The float model runs with one layer in INT8 after another. The bundle is not changed. Training
    images are used: some for the ranges, and others to measure on.

    Examples:
        >>> sensitivity(Path("birds.finedge"), data=Path("birds"))["layers"][0]["layer"]
        'node_Conv_609'

    Args:
        bundle: the bundle's folder.
        data: the images the model was trained on.
        images: how many training images to measure on, each also in a hard view.
        calibration_images: how many other training images give the ranges.
        method: the collector of the ranges, as for `finedge calibrate`.
        seed: chooses the images.
        plot: write the ranking as a picture to this .svg file.
    """
    from finedge.bundle import Bundle
    from finedge.calib.decision.compare import Decision
    from finedge.calib.decision.damage import with_hard_views
    from finedge.calib.decision.decision_set import draw_samples
    from finedge.calib.int8_files import calibrate_model, float_model
    from finedge.calib.options import MIN_IMAGES
    from finedge.calib.plan import QuantizationPlan
    from finedge.calib.sensitivity.measure import rank_units, units_of
    from finedge.files import writable_place
    from finedge.runtime.evaluate.labelled import bundle_dataset

    if images < MIN_IMAGES:
        raise UsageError(f"--images {images}", expected=f"at least {MIN_IMAGES}")
    if plot is not None:
        writable_place(plot.resolve().parent, option="--plot")
    loaded = Bundle.load(bundle)
    samples = draw_samples(
        bundle_dataset(loaded, data),
        images=calibration_images,
        decision_images=images,
        seed=seed,
    )
    if samples.decision is None:
        raise DataError(
            "too few training images to measure on",
            expected=f"at least {MIN_IMAGES} besides those that calibrate",
            fix="give --data with more images",
        )
    calibrated = calibrate_model(
        float_model(loaded),
        loaded.spec,
        sample=samples.calibration,
        methods=(method,),
        corrects_biases=False,
    )
    plan = QuantizationPlan(method, bias_correction=False)
    units = units_of(calibrated, plan)
    decision_images = with_hard_views(samples.decision, loaded.spec.preprocess)
    decision = Decision(calibrated.model, loaded.spec, decision_images)
    ranking = rank_units(calibrated, plan, units=units, decision=decision)
    rows = [entry.to_json(units) for entry in ranking]
    _write_plot(rows, samples, plot=plot, name=bundle.name)
    return {
        "images": len(samples.decision.items),
        "method": method,
        "int8_macs": round(units.int8_share(()), 6),
        "layers": rows,
        "plot": None if plot is None else str(plot),
    }


def _write_plot(
    rows: list[dict[str, Any]], samples: Samples, *, plot: Path | None, name: str
) -> None:
    from finedge.calib.sensitivity.plot import ranking_svg
    from finedge.files import write_text

    if plot is not None:
        images = len(samples.decision.items) if samples.decision else 0
        title = f"{name}: sensitivity of its layers to INT8, {images} training images"
        write_text(plot, ranking_svg(rows, title=title))
        log.info("%s: the ranking of %d layers", plot, len(rows))
