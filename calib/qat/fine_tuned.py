"""The INT8 files of a bundle after quantization-aware training (`finedge calibrate --qat RUN`)."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from finedge.bundle import PORTABLE_FILE, Bundle
from finedge.calib.decision.decision_set import Samples
from finedge.calib.int8_files import Int8Files, float_model, source_file
from finedge.calib.options import QatOptions
from finedge.calib.qat.training import (
    FineTuned,
    check_file,
    fine_tune,
    require_float,
    require_run_of,
)
from finedge.data import DataSet
from finedge.spec import Preprocess
from finedge.train.run import Run, load_run

CHECKED_BATCHES = 8  # of 4 calibration images, which compare the file with the fake quantizers


def open_run(bundle: Bundle, path: Path) -> Run:
    """Open the run that a bundle was exported from; nothing is trained yet.

    Raises:
        DataError: no run there.
        UsageError: it is the run of another bundle.
        BundleError: the float model of the bundle is quantized already.
    """
    require_float(float_model(bundle), name=str(bundle.file(source_file(bundle))))
    run = load_run(path)
    require_run_of(bundle, run)
    return run


def fine_tuned_model(
    bundle: Bundle,
    plain: Int8Files,
    *,
    run: Run,
    data: DataSet,
    samples: Samples,
    options: QatOptions,
) -> FineTuned:
    """Return the float model of a bundle after quantization-aware training.

    The images of the decision set are not trained on: they decide afterwards.

    Args:
        bundle: is not changed.
        plain: its files without training: they give the places and ranges of the fake quantizers.
        run: of `open_run`.
        data: holds the training split.
        samples: the images of the calibration.
        options: epochs and learning rate.

    Raises:
        SystemProblem, FinedgeError: as `fine_tune`.
    """
    places = onnx.load_model_from_string(plain.files[PORTABLE_FILE])
    decides = frozenset(samples.decision.items if samples.decision else ())
    items = [item for item in data.split("train") if item not in decides]
    return fine_tune(float_model(bundle), places, run=run, items=items, options=options)


def check_fine_tuned(
    tuned: FineTuned, made: Int8Files, samples: Samples, *, preprocess: Preprocess
) -> dict[str, Any]:
    """Compare the file for TensorRT with what was trained; return the record of the training.

    Raises:
        GateError: the file computes something else.
    """
    batches = [*islice(samples.calibration.batches(preprocess), CHECKED_BATCHES)]
    correlation = check_file(tuned, made.files[PORTABLE_FILE], np.concatenate(batches))
    return {**tuned.record, "correlation": round(correlation, 5)}
