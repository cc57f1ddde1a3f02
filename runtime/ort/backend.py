"""The ONNX Runtime backend: the CPU that every machine has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import CPU_FILE, FLOAT_FILE, PORTABLE_FILE, VARIANTS, Bundle
from finedge.errors import BundleError, FinedgeError, SystemProblem, UsageError
from finedge.graph.onnx_file import read_model, read_onnx
from finedge.graph.taps import PREFIX, with_taps
from finedge.runtime.backend import (
    REDUCED_RANGE,
    SessionInfo,
    SessionOptions,
    check_batch,
    pick_file,
)
from finedge.runtime.machine.cpu import cpu_name, owned_cores
from finedge.runtime.machine.packages import is_installed, package_version
from finedge.runtime.model_io import IoTensor, check_model_io, check_scores
from finedge.runtime.ort.int8_products import EXACT_SETTING, PROVIDER, int8_products

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

NAME = "onnxruntime"
# ONNX Runtime's names for the types that a classifier has.
DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
}
OUT_OF_MEMORY_TEXTS = ("Failed to allocate memory", "bad_alloc", "bad allocation")
# The CPU form first: ONNX Runtime hardly fuses the portable one.
FILES = {**VARIANTS, "int8": (CPU_FILE, PORTABLE_FILE)}


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """Runs a bundle's ONNX files on the CPU."""

    options: SessionOptions = field(default_factory=SessionOptions)
    name: str = field(default=NAME, init=False)
    usual_variants: tuple[str, ...] = field(default=("fp32", "int8"), init=False)

    def why_not(self) -> str | None:
        """Return why it cannot run on this machine."""
        missing = [p for p in ("onnxruntime", "onnx") if not is_installed(p)]
        if missing:
            return f"needs {', '.join(missing)}: pip install finedge"
        try:
            package_version("onnxruntime")
        except SystemProblem as error:
            return error.what
        return None

    def open(self, bundle: Bundle, *, variant: str) -> OnnxRuntimeSession:
        """Open a variant.

        `info.file` names the file. `info.precision` is `REDUCED_RANGE` where its weights were cut
        to 7 bits.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks it, or ONNX Runtime refuses the file.
            SystemProblem: ONNX Runtime chose another provider than the CPU.
        """
        file = pick_file(bundle, variant, order=FILES.get(variant))
        if variant == "int8" and file != CPU_FILE:
            log.warning(
                "%s holds no %s: %s runs instead. On a CPU it is slower than fp32. "
                "finedge calibrate writes the missing file.",
                bundle.path,
                CPU_FILE,
                file,
            )
        return self.open_file(bundle, file)

    def open_file(self, bundle: Bundle, file: str) -> OnnxRuntimeSession:
        """Open one file of the manifest by its name."""
        path = bundle.file(file)
        precision = file.split(".")[1]
        if precision == "int8" and self._cuts_weights():
            from finedge.graph.reduce_range import reduce_range

            model = reduce_range(read_model(path)).SerializeToString()
            return self._start(model, bundle, SessionInfo(NAME, cpu_name(), file, REDUCED_RANGE))
        return self._start(read_onnx(path), bundle, SessionInfo(NAME, cpu_name(), file, precision))

    def open_with_taps(self, bundle: Bundle) -> OnnxRuntimeSession:
        """Open the float model with one more output, `tap/NAME`, for each tap of the bundle."""
        model = with_taps(read_model(bundle.file(FLOAT_FILE)), bundle.taps).SerializeToString()
        return self._start(model, bundle, SessionInfo(NAME, cpu_name(), FLOAT_FILE, "fp32"))

    def _cuts_weights(self) -> bool:
        if self.options.exact or int8_products() == "exact":
            return False
        log.info(
            "INT8 products saturate on this CPU: the weights are cut to 7 bits, which prevents it"
        )
        return True

    def _start(self, model: bytes, bundle: Bundle, info: SessionInfo) -> OnnxRuntimeSession:
        import onnxruntime

        version = onnxruntime.__version__
        settings = _settings(self.options)
        try:
            session = onnxruntime.InferenceSession(model, settings, providers=[PROVIDER])
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise BundleError(
                f"ONNX Runtime {version} refuses {bundle.path / info.file}: {error}",
                fix="export again, or update onnxruntime",
            ) from error
        if session.get_providers()[0] != PROVIDER:
            raise SystemProblem(
                f"ONNX Runtime runs on {session.get_providers()[0]}",
                expected=PROVIDER,
                fix="pip install onnxruntime",
            )
        inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
        check_model_io(inputs, outputs, bundle, file=info.file)
        return OnnxRuntimeSession(session, bundle, replace(info, versions={NAME: version}))


class OnnxRuntimeSession:
    """One open file."""

    def __init__(
        self, session: onnxruntime.InferenceSession, bundle: Bundle, info: SessionInfo
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._spec = bundle.spec
        names = [output.name for output in session.get_outputs()]
        of_spec = {output.name for output in bundle.spec.outputs}
        self._names = [name for name in names if name in of_spec or name.startswith(PREFIX)]
        self.info = info

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return float32 [B, classes] by output name."""
        check_batch(batch, self._spec)
        if self._session is None:
            raise UsageError(
                f"the session of {self.info.file} is closed", expected="calls before close()"
            )
        try:
            arrays = self._session.run(self._names, {self._spec.input.name: batch})
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise _run_error(self.info.file, error) from error
        outputs = {
            name: np.asarray(array, np.float32)
            for name, array in zip(self._names, arrays, strict=True)
        }
        check_scores(outputs, self._spec, rows=len(batch), file=self.info.file)
        return outputs

    def close(self) -> None:
        """Free the model."""
        self._session = None


def _settings(options: SessionOptions) -> onnxruntime.SessionOptions:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.intra_op_num_threads = options.threads or owned_cores()
    settings.inter_op_num_threads = 1
    # Errors only: the warnings are about initializers that functions leave unused.
    settings.log_severity_level = 3
    spinning = "1" if options.spin else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    if options.exact:
        settings.add_session_config_entry(*EXACT_SETTING)
    return settings


def _tensors(arguments: Sequence[onnxruntime.NodeArg]) -> list[IoTensor]:
    # ONNX Runtime reports [] for a scalar and for an unknown rank: the run will show which.
    tensors = []
    for argument in arguments:
        sizes = tuple(n if isinstance(n, int) else None for n in argument.shape)
        dtype = DTYPES.get(argument.type, argument.type)
        tensors.append(IoTensor(argument.name, dtype, sizes or None))
    return tensors


def _run_error(file: str, error: Exception) -> FinedgeError:
    """Return the error of a run that ended without an answer."""
    if isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY_TEXTS):
        return SystemProblem(
            f"{file} asks for more memory than there is: {error}",
            expected="a model that fits this machine",
            fix="run another variant",
        )
    return BundleError(
        f"{file} cannot be run: {error}",
        expected="a model as finedge export writes it",
        fix="export again",
    )
