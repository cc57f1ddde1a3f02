"""One open model in OpenVINO: settings, opening, a run, its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import BundleError, UsageError
from finedge.graph.taps import PREFIX
from finedge.runtime.backend import SessionInfo, SessionOptions, check_batch
from finedge.runtime.machine.cpu import owned_cores
from finedge.runtime.model_io import IoTensor, check_model_io, check_scores
from finedge.runtime.openvino.library import core, openvino_version
from finedge.runtime.ort.session import run_error

DEVICE = "CPU"
EXPORT_AGAIN = "export again, or update openvino"
# OpenVINO's names for the types that a classifier has.
DTYPES = {"u8": "uint8", "f32": "float32", "f16": "float16", "f64": "float64"}
Settings = Mapping[str, Any]


class OpenVinoSession:
    """Runs a model on the CPU. Not for several threads.

    A model of a fixed batch of one is 4 to 8 % faster than one of any batch (EfficientNet-Lite0,
    160 px, one thread of an EPYC with VNNI). So single frames have a model of their own. The model
    of any batch is compiled when the first other batch comes.

    Args:
        model: OpenVINO's model; it fits the bundle.
        bundle: what it is part of.
        info: what runs.
        settings: OpenVINO's settings (`session_settings`).
    """

    def __init__(
        self, model: Any, bundle: Bundle, info: SessionInfo, *, settings: Settings
    ) -> None:
        self.info = info
        self._model: Any = model
        self._spec, self._settings = bundle.spec, settings
        of_spec = {output.name for output in bundle.spec.outputs}
        self._outputs = {
            name: index
            for index, port in enumerate(model.outputs)
            for name in sorted(port.get_names())
            if name in of_spec or name.startswith(PREFIX)
        }
        self._requests: dict[bool, Any] = {True: self._request(single=True)}

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return float32 [B, classes] by output name."""
        check_batch(batch, self._spec)
        if self._model is None:
            raise UsageError(
                f"the session of {self.info.file} is closed", expected="calls before close()"
            )
        outputs = self._run(batch)
        check_scores(outputs, self._spec, rows=len(batch), file=self.info.file)
        return outputs

    def close(self) -> None:
        """Free the model."""
        self._requests.clear()
        self._model = None

    def _run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        single = len(batch) == 1
        try:
            if single not in self._requests:
                self._requests[single] = self._request(single=single)
            request = self._requests[single]
            # OpenVINO copies the input here. A tensor that shares the memory would not keep the
            # array alive: the answer of a dropped array is wrong, without any error.
            request.infer([batch], share_inputs=False, share_outputs=True)
            return {
                name: np.array(request.get_output_tensor(index).data, np.float32)
                for name, index in self._outputs.items()
            }
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            raise run_error(self.info.file, error) from error

    def _request(self, *, single: bool) -> Any:
        """Compile the model for single frames or for any batch, and return what runs it."""
        model = self._model
        shape = model.inputs[0].get_partial_shape()
        if single and shape.rank.is_static and shape[0].is_dynamic:
            model = model.clone()
            size = self._spec.input
            model.reshape({0: [1, size.height, size.width, 3]})
        compiled = core().compile_model(model, DEVICE, dict(self._settings))
        return compiled.create_infer_request()


def open_session(
    content: bytes, bundle: Bundle, info: SessionInfo, *, settings: Settings
) -> OpenVinoSession:
    """Open the bytes of an ONNX file without model-local functions: OpenVINO expands none.

    Raises:
        BundleError: OpenVINO refuses the model, or its input or outputs are not the bundle's.
    """
    try:
        model = core().read_model(content)
        _check_io(model, bundle, file=info.file)
        return OpenVinoSession(model, bundle, info, settings=settings)
    except RuntimeError as problem:
        version, path = openvino_version(), bundle.path / info.file
        raise BundleError(
            f"OpenVINO {version} refuses {path}: {problem}", fix=EXPORT_AGAIN
        ) from problem


def session_settings(options: SessionOptions) -> Settings:
    """Return OpenVINO's settings: one query at a time, as fast as possible, in float32.

    `options.spin` has no counterpart. `options.exact` keeps Q/DQ pairs as they are in the file and
    multiplies in float: its INT8 kernels round at other places, and saturate without VNNI.
    """
    exact = {"LP_TRANSFORMS_MODE": "NO"} if options.exact else {}
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": options.threads or owned_cores(),
        # Without it a CPU with AVX-512 BF16 or AMX computes the float layers in bfloat16.
        "INFERENCE_PRECISION_HINT": "f32",
        # Pinned threads would wait for the core that a decoder or another program has.
        "ENABLE_CPU_PINNING": False,
        **exact,
    }


def _check_io(model: Any, bundle: Bundle, *, file: str) -> None:
    inputs = [tensor for port in model.inputs for tensor in _tensors(port)]
    outputs = [tensor for port in model.outputs for tensor in _tensors(port)]
    check_model_io(inputs, outputs, bundle, file=file)


def _tensors(port: Any) -> list[IoTensor]:
    """Return an input or output under each of its names: OpenVINO merges equal outputs."""
    kind = port.get_element_type().to_string()
    partial = port.get_partial_shape()
    shape = None
    if partial.rank.is_static:
        shape = tuple(None if size.is_dynamic else size.get_length() for size in partial)
    return [IoTensor(name, DTYPES.get(kind, kind), shape) for name in sorted(port.get_names())]
