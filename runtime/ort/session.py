"""What the CPU and the GPU backends of ONNX Runtime share: settings, opening, a run, its errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import BundleError, FinedgeError, SystemProblem, UsageError
from finedge.graph.taps import PREFIX
from finedge.runtime.backend import SessionInfo, SessionOptions, check_batch
from finedge.runtime.machine.cpu import owned_cores
from finedge.runtime.model_io import IoTensor, check_model_io, check_scores
from finedge.runtime.ort.int8_products import EXACT_SETTING

if TYPE_CHECKING:
    import onnxruntime

# A provider of ONNX Runtime: its name, with its options.
ProviderOptions = tuple[str, dict[str, str]]

# ONNX Runtime's names for the types that a classifier has.
DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
}
OUT_OF_MEMORY_TEXTS = ("Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory")
# Texts in the errors of NVIDIA's libraries, and of a provider that fails while it runs.
GPU_TEXTS = ("CUDA", "CUDNN", "CUBLAS", "EP_FAIL")
EXPORT_AGAIN = "export again, or update onnxruntime"


class OnnxRuntimeSession:
    """One open file.

    Args:
        session: ONNX Runtime's session of a model that fits the bundle.
        bundle: what it is part of.
        info: what runs.
        max_batch: a larger batch is run in parts; None takes any batch.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        bundle: Bundle,
        info: SessionInfo,
        *,
        max_batch: int | None = None,
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._spec, self._max_batch = bundle.spec, max_batch
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
        size = self._max_batch or len(batch)
        parts = [self._run(self._session, batch[i : i + size]) for i in range(0, len(batch), size)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}

    def close(self) -> None:
        """Free the model."""
        self._session = None

    def _run(
        self, session: onnxruntime.InferenceSession, batch: NDArray[np.uint8]
    ) -> dict[str, NDArray[np.float32]]:
        try:
            arrays = session.run(self._names, {self._spec.input.name: batch})
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise run_error(self.info.file, error) from error
        outputs = {
            name: np.asarray(array, np.float32)
            for name, array in zip(self._names, arrays, strict=True)
        }
        check_scores(outputs, self._spec, rows=len(batch), file=self.info.file)
        return outputs


def session_settings(options: SessionOptions) -> onnxruntime.SessionOptions:
    """Return ONNX Runtime's settings for any provider: all optimisations, one thread pool.

    With `exact`, INT8 products are exact on every CPU.
    """
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
    # A thread that spins after its run holds a core, and `auto` times OpenVINO in the same process.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if options.exact:
        settings.add_session_config_entry(*EXACT_SETTING)
    return settings


def open_model(
    model: bytes,
    settings: onnxruntime.SessionOptions,
    *,
    providers: Sequence[str | ProviderOptions] | None,
    name: str,
    error: type[FinedgeError] = BundleError,
    fix: str = EXPORT_AGAIN,
) -> onnxruntime.InferenceSession:
    """Open a model, and never with other providers than these.

    After a failure ONNX Runtime's Python would try again on the CPU, with a message on stdout
    (`enable_fallback`). That is switched off, for later runs too.

    Args:
        model: the bytes of an ONNX file.
        settings: ONNX Runtime's settings.
        providers: its providers; None takes those of the settings.
        name: what the model is, for the text of the error.
        error: the type of the error.
        fix: what to do about the error.

    Raises:
        FinedgeError: of the type `error`; the text has ONNX Runtime's own.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            model,
            settings,
            providers=None if providers is None else list(providers),
            enable_fallback=0,
        )
    except Exception as problem:  # ONNX Runtime's own exceptions share no base class
        version = onnxruntime.__version__
        raise error(f"ONNX Runtime {version} refuses {name}: {problem}", fix=fix) from problem


def check_io(session: onnxruntime.InferenceSession, bundle: Bundle, *, file: str) -> None:
    """Refuse a model whose input and outputs are not those of the bundle's spec."""
    inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
    check_model_io(inputs, outputs, bundle, file=file)


def run_error(file: str, error: Exception) -> FinedgeError:
    """Return the error of a run that failed."""
    if isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY_TEXTS):
        return SystemProblem(
            f"{file} asks for more memory than there is: {error}",
            expected="a model that fits this machine",
            fix="run another variant",
        )
    if any(text in str(error) for text in GPU_TEXTS):
        return SystemProblem(
            f"the GPU does not run {file}: {error}",
            fix="finedge doctor; --backend onnxruntime runs on the CPU",
        )
    return BundleError(
        f"{file} cannot be run: {error}",
        expected="a model as finedge export writes it",
        fix="export again",
    )


def _tensors(arguments: Sequence[onnxruntime.NodeArg]) -> list[IoTensor]:
    # ONNX Runtime reports [] for a scalar and for an unknown rank: the run will show which.
    tensors = []
    for argument in arguments:
        sizes = tuple(n if isinstance(n, int) else None for n in argument.shape)
        dtype = DTYPES.get(argument.type, argument.type)
        tensors.append(IoTensor(argument.name, dtype, sizes or None))
    return tensors
