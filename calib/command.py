"""`finedge calibrate`: one pass over training images, two INT8 files added to the bundle; one over held-out images, how sure each variant may be."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from finedge.bundle import CPU_FILE, FLOAT_FILE, GOLDEN, PORTABLE_FILE, PROJECTED_FILE, Bundle
from finedge.confidence import KEY, STAGE
from finedge.data import NewImages
from finedge.errors import UsageError
from finedge.files import writable_place

if TYPE_CHECKING:
    import onnx

    from finedge.calib.calibration_set import CalibrationSet
    from finedge.calib.ranges import RangeTable
    from finedge.calib.report import QuantizationReport
    from finedge.data import DataSet

log = logging.getLogger(__name__)


def calibrate(
    bundle: Positional[Path],
    *,
    data: Path,
    images: int = 256,
    method: str = "max",
    seed: int = 0,
    give_up: float = 0.05,
    new_images: NewImages = "ignore",
) -> dict[str, Any]:
    """Add the INT8 variants to a bundle, or replace them, and fit how sure each variant may say it is.

    Args:
        bundle: the bundle's folder.
        data: the images the model was trained on: the training split for INT8, the validation split for the confidence; never test.
        images: how many to calibrate with, balanced over the classes.
        method: max keeps every value; percentile cuts off the largest 0.01 % of magnitudes.
        seed: chooses the images.
        give_up: the largest share of right answers that may be called unknown instead; more of it catches more pictures of other things.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into train, val or test.
    """
    from finedge.calib.calibration_set import draw_sample
    from finedge.calib.observe import collect_ranges
    from finedge.calib.onnxruntime import quantize_for_onnxruntime
    from finedge.calib.tensorrt import quantize_for_tensorrt
    from finedge.data.evaluated import counts
    from finedge.graph.metadata import with_facts
    from finedge.graph.onnx_file import read_model
    from finedge.runtime.evaluate.labelled import bundle_dataset

    if not 0 <= give_up < 1:
        raise UsageError(
            f"--give-up {give_up}", expected="a share of the right answers, 0 <= share < 1"
        )
    loaded = Bundle.load(bundle)
    writable_place(loaded.path.resolve().parent, option="BUNDLE")
    dataset = bundle_dataset(loaded, data, new_images=new_images)
    sample = draw_sample(dataset, images=images, seed=seed)
    source = source_file(loaded)
    model = read_model(loaded.file(source))
    table = collect_ranges(model, _with_progress(sample, loaded), method=method)
    placed = {
        PORTABLE_FILE: quantize_for_tensorrt(model, table),
        CPU_FILE: quantize_for_onnxruntime(model, table),
    }
    models = {name: with_facts(quantized, loaded.spec) for name, (quantized, _) in placed.items()}
    files = {name: _checked(model) for name, model in models.items()}
    record = _record(sample, table, {name: placement for name, (_, placement) in placed.items()})
    record = {
        "seed": seed,
        "source": source,
        "model_sha256": loaded.files[source],
        "data": counts(dataset),
        **record,
    }
    written = loaded.extend(STAGE, {**files, GOLDEN: _golden(loaded, files)}, record)
    log.info("%s: INT8 files of %s from %d images (%s)", bundle, source, len(sample.items), method)
    confidence = _confidence(written, dataset, give_up=give_up)
    written.extend(STAGE, {}, {**record, KEY: confidence})
    return {
        "images": len(sample.items),
        "method": method,
        "files": {name: len(content) for name, content in files.items()},
        "int8_layers": {name: len(placement.int8) for name, (_, placement) in placed.items()},
        "float_layers": {
            name: len(placement.stays_float) for name, (_, placement) in placed.items()
        },
        "confidence": confidence,
        "data": counts(dataset),
    }


def source_file(bundle: Bundle) -> str:
    """Return the name of the float file that INT8 is made of: the one in the form for INT8, where the bundle has it."""
    return PROJECTED_FILE if PROJECTED_FILE in bundle.files else FLOAT_FILE


def _confidence(bundle: Bundle, data: DataSet, *, give_up: float) -> dict[str, dict[str, Any]]:
    """Return the confidence record of each variant; none where there are too few held-out images."""
    from finedge.calib.confidence import fit_confidence, held_out

    sample = held_out(data)
    return (
        {}
        if sample is None
        else {
            variant: fit.to_json()
            for variant, fit in fit_confidence(bundle, sample, give_up=give_up).items()
        }
    )


def _with_progress(sample: CalibrationSet, bundle: Bundle) -> Iterator[NDArray[np.uint8]]:
    """Yield the preprocessed batches; a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("calibrating", total=len(sample.items))
        for batch in sample.batches(bundle.spec.preprocess):
            yield batch
            progress.advance(task, len(batch))


def _checked(model: onnx.ModelProto) -> bytes:
    import onnx

    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _golden(bundle: Bundle, files: Mapping[str, bytes]) -> bytes:
    """Return golden.npz with the new files' outputs: the same numbers on every CPU."""
    from finedge.golden import pack, read_golden
    from finedge.runtime.backend import SessionOptions
    from finedge.runtime.ort.backend import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(SessionOptions(exact=True))

    arrays = {
        name: array
        for name, array in read_golden(bundle).items()
        if name.split("/")[0] not in files
    }
    frame = np.asarray(arrays["input"], np.uint8)[None]
    with tempfile.TemporaryDirectory() as folder:
        trial = Bundle.create(
            Path(folder) / "trial.finedge", bundle.spec, files=files, provenance={}
        )
        for name in files:
            outputs = backend.open_file(trial, name)(frame)
            arrays |= {f"{name}/{output}": value for output, value in outputs.items()}
    return pack(arrays)


def _record(
    sample: CalibrationSet, table: RangeTable, placements: Mapping[str, QuantizationReport]
) -> dict[str, Any]:
    import onnx
    import onnx_ir
    import onnxruntime

    from finedge import __version__

    return {
        "images_sha256": list(sample.digests),
        "method": table.method,
        "ranges": table.to_json(),
        "placements": {name: placement.to_json() for name, placement in placements.items()},
        "versions": {
            "finedge": __version__,
            "onnx": onnx.__version__,
            "onnx_ir": onnx_ir.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
