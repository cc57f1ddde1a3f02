"""The INT8 files of a bundle, from its float model and a calibration set."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from finedge.bundle import (
    CPU_FILE,
    FLOAT_FILE,
    HALF_FILE,
    PORTABLE_FILE,
    PROJECTED_FILE,
    Bundle,
)
from finedge.calib.bias.bias_correction import FloatMeans, correct_biases, float_means
from finedge.calib.plan import QuantizationPlan
from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.report import QuantizationReport
from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.calib.ranges.calibration_table import CalibrationTable, CalibrationTables
from finedge.calib.ranges.observe import collect_curve
from finedge.calib.step_times import StepTimes
from finedge.golden import pack, read_golden
from finedge.graph.metadata import with_metadata
from finedge.graph.onnx_file import read_model
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.spec import Spec

# Images whose activations a core holds at once: 75 MB each for ResNet-50 at 224. Four cost 0.5 GB
# more on two cores, and no less CPU time.
PASS_BATCH = 2


@dataclass(frozen=True)
class CalibratedModel:
    """A float model and its calibration tables: with a plan, all that quantization needs.

    Attributes:
        model: the float model, with its functions.
        spec: of the bundle.
        tables: the ranges of its tensors by each method.
        curve: the same after other numbers of images, the fewest first; empty unless asked for.
        means: what the biases are corrected with; None where no plan corrects them.
    """

    model: onnx.ModelProto = field(repr=False)
    spec: Spec
    tables: CalibrationTables = field(repr=False)
    curve: tuple[CalibrationTables, ...] = field(default=(), repr=False)
    means: FloatMeans | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Int8Files:
    """The INT8 files by name, their reports by name, and what they were made from.

    `images` is the number of images that gave the table.
    """

    files: Mapping[str, bytes] = field(repr=False)
    reports: Mapping[str, QuantizationReport]
    table: CalibrationTable = field(repr=False)
    plan: QuantizationPlan
    images: int


def float_model(bundle: Bundle) -> onnx.ModelProto:
    """Return the float model that the INT8 files of a bundle are made of (`source_file`)."""
    return read_model(bundle.file(source_file(bundle)))


def calibrate_model(
    model: onnx.ModelProto,
    spec: Spec,
    *,
    sample: CalibrationSet,
    methods: Sequence[str],
    sizes: Sequence[int] = (),
    corrects_biases: bool = True,
    times: StepTimes | None = None,
) -> CalibratedModel:
    """Run a float model once over the images of `sample`, and gather the ranges of its tensors.

    Args:
        model: the float model.
        spec: of its bundle.
        sample: the calibration images.
        methods: the collectors.
        sizes: the numbers of images of the curve, then that of the files. Empty: the files are made
            of all images, and there is no curve.
        corrects_biases: also measure the means that plans with bias correction need.
        times: gets the time of each step.

    Raises:
        UsageError: unknown method.
        DataError: the model is quantized already.
        FinedgeError: a tensor of the float model holds NaN or infinity.
    """
    batches = sample.watched_batches(spec.preprocess, "calibrating", size=PASS_BATCH)
    times = times or StepTimes()
    with times.step("ranges"):
        curve = collect_curve(model, batches, methods=methods, sizes=sizes)
    images = sizes[-1] if sizes else curve[-1].images
    used = next((tables for tables in curve if tables.images >= images), curve[-1])
    with times.step("bias means"):
        means = float_means(model, sample.batches(spec.preprocess)) if corrects_biases else None
    return CalibratedModel(model, spec, used, curve if len(sizes) > 1 else (), means)


@dataclass(frozen=True)
class CpuModel:
    """A model for ONNX Runtime, its report, and the plan that it was made by."""

    plan: QuantizationPlan
    model: onnx.ModelProto = field(repr=False)
    report: QuantizationReport


def quantize(
    calibrated: CalibratedModel, plan: QuantizationPlan, *, ready: CpuModel | None = None
) -> Int8Files:
    """Make the INT8 files for TensorRT and for ONNX Runtime by one plan, without any calibration.

    Args:
        calibrated: the float model and its ranges.
        plan: every choice.
        ready: a model that a decision made of `calibrated`; it is used where its plan is this one.

    Raises:
        UsageError: the pass did not gather the ranges of the plan's method.
    """
    model, table = calibrated.model, calibrated.tables[plan.method]
    portable, report = quantize_for_tensorrt(model, table, keep_float=plan.keep_float)
    if ready is None or ready.plan != plan:
        ready = make_cpu_model(calibrated, plan)
    models = {PORTABLE_FILE: _corrected(portable, calibrated, plan), CPU_FILE: ready.model}
    files = {
        name: _checked(with_metadata(int8_model, calibrated.spec))
        for name, int8_model in models.items()
    }
    reports = {PORTABLE_FILE: report, CPU_FILE: ready.report}
    return Int8Files(files, reports, table, plan, calibrated.tables.images)


def cpu_model(calibrated: CalibratedModel, plan: QuantizationPlan) -> onnx.ModelProto:
    """Make only the model for ONNX Runtime: what a decision between plans runs."""
    return make_cpu_model(calibrated, plan).model


def make_cpu_model(calibrated: CalibratedModel, plan: QuantizationPlan) -> CpuModel:
    """Make only the model for ONNX Runtime, with its report."""
    table = calibrated.tables[plan.method]
    model, report = quantize_for_onnxruntime(
        calibrated.model, table, keep_float=plan.keep_float, attention=plan.attention
    )
    return CpuModel(plan, _corrected(model, calibrated, plan), report)


def _corrected(
    model: onnx.ModelProto, calibrated: CalibratedModel, plan: QuantizationPlan
) -> onnx.ModelProto:
    if calibrated.means is None or not plan.bias_correction:
        return model
    return correct_biases(model, calibrated.means)[0]


def source_file(bundle: Bundle) -> str:
    """Return the name of the float file that INT8 is made of.

    It is the one in the form for INT8, where the bundle has it.
    """
    return PROJECTED_FILE if PROJECTED_FILE in bundle.files else FLOAT_FILE


@contextmanager
def trial_bundle(bundle: Bundle, files: Mapping[str, bytes]) -> Iterator[Bundle]:
    """Give a copy of a bundle with new files, in a temporary folder: nothing is changed yet."""
    kept = {name: bundle.file(name) for name in (FLOAT_FILE, HALF_FILE) if name in bundle.files}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.finedge"
        yield Bundle.create(path, bundle.spec, files={**kept, **files}, provenance={})


def golden_with(bundle: Bundle, trial: Bundle, *, files: Mapping[str, bytes]) -> bytes:
    """Return golden.npz with the outputs of new files: the same numbers on every CPU.

    Args:
        bundle: holds the golden frame.
        trial: holds `files`.
        files: the new files by name.
    """
    backend = OnnxRuntimeBackend(SessionOptions(exact=True))
    stored = read_golden(bundle).items()
    arrays = {name: array for name, array in stored if name.split("/")[0] not in files}
    frame = np.asarray(arrays["input"], np.uint8)[None]
    for name in files:
        outputs = backend.open_file(trial, name)(frame)
        arrays |= {f"{name}/{output}": value for output, value in outputs.items()}
    return pack(arrays)


def _checked(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content
