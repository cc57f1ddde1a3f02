"""The INT8 files of a bundle, from its float model and a calibration set."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime

from finedge import __version__
from finedge.bundle import CPU_FILE, FLOAT_FILE, PORTABLE_FILE, PROJECTED_FILE, Bundle
from finedge.calib.calibration_set import CalibrationSet
from finedge.calib.calibration_table import CalibrationTable
from finedge.calib.observe import collect_ranges
from finedge.calib.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantization import QuantizationReport
from finedge.calib.tensorrt import quantize_for_tensorrt
from finedge.golden import pack, read_golden
from finedge.graph.metadata import with_metadata
from finedge.graph.onnx_file import read_model
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend


@dataclass(frozen=True)
class Int8Files:
    """The INT8 files by name, their reports by name, and the table that they were made from."""

    files: Mapping[str, bytes]
    reports: Mapping[str, QuantizationReport]
    table: CalibrationTable


def int8_files(
    bundle: Bundle, sample: CalibrationSet, *, method: str, keep_float: Set[str] = frozenset()
) -> Int8Files:
    """Make the INT8 files for TensorRT and for ONNX Runtime in one pass over the images.

    Args:
        bundle: holds the float model (`source_file`).
        sample: the images to calibrate with.
        method: the collector of the ranges, max or percentile.
        keep_float: names of layers that stay in float in both files.

    Raises:
        UsageError: unknown method.
        FinedgeError: a tensor of the float model holds NaN or infinity.
    """
    model = read_model(bundle.file(source_file(bundle)))
    batches = sample.watched_batches(bundle.spec.preprocess, "calibrating")
    table = collect_ranges(model, batches, method=method)
    quantized = {
        PORTABLE_FILE: quantize_for_tensorrt(model, table, keep_float=keep_float),
        CPU_FILE: quantize_for_onnxruntime(model, table, keep_float=keep_float),
    }
    files = {
        name: _checked(with_metadata(int8_model, bundle.spec))
        for name, (int8_model, _) in quantized.items()
    }
    return Int8Files(files, {name: report for name, (_, report) in quantized.items()}, table)


def source_file(bundle: Bundle) -> str:
    """Return the name of the float file that INT8 is made of.

    It is the one in the form for INT8, where the bundle has it.
    """
    return PROJECTED_FILE if PROJECTED_FILE in bundle.files else FLOAT_FILE


def golden_with(bundle: Bundle, files: Mapping[str, bytes]) -> bytes:
    """Return golden.npz with the outputs of new files: the same numbers on every CPU."""
    backend = OnnxRuntimeBackend(SessionOptions(exact=True))
    stored = read_golden(bundle).items()
    arrays = {name: array for name, array in stored if name.split("/")[0] not in files}
    frame = np.asarray(arrays["input"], np.uint8)[None]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.finedge"
        trial = Bundle.create(path, bundle.spec, files=files, provenance={})
        for name in files:
            outputs = backend.open_file(trial, name)(frame)
            arrays |= {f"{name}/{output}": value for output, value in outputs.items()}
    return pack(arrays)


def calibration_record(sample: CalibrationSet, result: Int8Files) -> dict[str, Any]:
    """Return the part of the provenance record that says how the INT8 files were made."""
    return {
        "images_sha256": list(sample.digests),
        "method": result.table.method,
        "ranges": result.table.to_json(),
        "placements": {name: report.to_json() for name, report in result.reports.items()},
        "versions": {
            "finedge": __version__,
            "onnx": onnx.__version__,
            "onnx_ir": onnx_ir.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def _checked(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content
