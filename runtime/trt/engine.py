"""An engine ready to run: deserialised, its inputs and outputs read by name and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import BundleError, SystemProblem
from finedge.runtime.cuda.binding import MEMORY_FIX, OutOfDeviceMemory
from finedge.runtime.model_io import IoTensor, check_model_io
from finedge.runtime.trt.calls import typed_errors
from finedge.runtime.trt.factory import create
from finedge.runtime.trt.log import Messages

Scalar = TypeVar("Scalar", bound=np.generic)
# What TensorRT for RTX says about an engine that it will not run; one number may hold several bits.
DIAGNOSTICS = {
    1: "it was built by another version",
    2: "it was built for other compute capabilities than this GPU's",
    4: "the NVIDIA driver is too old",
    8: "the CUDA runtime is too old",
    16: "the GPU's memory is too small",
    32: "these bytes are no engine",
    64: "CUDA failed",
}


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine: `row` is its shape without the batch."""

    name: str
    dtype: np.dtype[np.generic]
    row: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [B, {', '.join(map(str, self.row))}]"

    @property
    def io_tensor(self) -> IoTensor:
        """What it can hold; the profile decides about the batch."""
        return IoTensor(self.name, str(self.dtype), (None, *self.row))

    def size(self, batch: int) -> int:
        """Return the bytes of `batch` rows."""
        return batch * int(np.prod(self.row, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Engine:
    """A deserialised engine that takes batches of `min_batch` to `max_batch` frames.

    `trt` is the library's module, `handle` its ICudaEngine. `runtime` is kept because the engine
    needs it. The engine of a whole model has one input, that of a segment may have several.
    """

    trt: Any
    runtime: Any
    handle: Any
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    min_batch: int
    max_batch: int

    @classmethod
    def load(cls, data: bytes, *, trt: Any, file: str) -> Engine:
        """Deserialise an engine; `file` is its name in errors.

        Raises:
            SystemProblem: TensorRT will not run it here; the text quotes TensorRT.
            BundleError: it has no input, a type that numpy lacks, or an open size that is not the
                batch.
        """
        runtime, handle = _deserialise(data, trt=trt, file=file)
        with typed_errors(trt, f"read the inputs and outputs of {file}"):
            return cls._of(runtime, handle, trt=trt, file=file)

    @classmethod
    def _of(cls, runtime: Any, handle: Any, *, trt: Any, file: str) -> Engine:
        names = [handle.get_tensor_name(i) for i in range(handle.num_io_tensors)]
        tensors = {name: _tensor(name, handle, trt=trt, file=file) for name in names}
        inputs = [name for name in names if handle.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if not inputs:
            raise BundleError(f"{file} has no input", expected="one", fix="finedge build")
        min_batch, max_batch = _batches(inputs[0], handle)
        read = tuple(tensors.pop(name) for name in inputs)
        return cls(trt, runtime, handle, read, tuple(tensors.values()), min_batch, max_batch)

    def check(self, bundle: Bundle, *, file: str) -> None:
        """Refuse an engine of a whole model whose input or outputs are not the bundle's.

        Raises:
            BundleError: the text names the input or output and both shapes.
        """
        inputs = [tensor.io_tensor for tensor in self.inputs]
        outputs = [tensor.io_tensor for tensor in self.outputs]
        check_model_io(inputs, outputs, bundle, file=file, fix="finedge build")


def _deserialise(data: bytes, *, trt: Any, file: str) -> tuple[Any, Any]:
    runtime = create(trt.Runtime, trt=trt)
    with typed_errors(trt, f"load {file}") as messages:
        handle = runtime.deserialize_cuda_engine(data)
        if handle is None:  # TensorRT raises nothing: it logs, and returns nothing
            raise _refusal(messages, _validity(runtime, data), trt=trt, file=file)
    return runtime, handle


def _refusal(messages: Messages, validity: str, *, trt: Any, file: str) -> SystemProblem:
    """Return the error of an engine that TensorRT did not load."""
    reason = validity or _first(messages.errors) or _first(messages) or "it gave no reason"
    what = f"{trt.__name__} {trt.__version__} will not load {file}: {reason}"
    if messages.out_of_memory:
        return OutOfDeviceMemory(what, fix=MEMORY_FIX)
    return SystemProblem(
        what,
        expected="an NVIDIA driver as new as this TensorRT needs, "
        "and an engine that this version built for this GPU",
        fix="finedge doctor shows driver and GPU; finedge build makes the engine again",
    )


def _validity(runtime: Any, data: bytes) -> str:
    """Return what TensorRT for RTX says is wrong with the bytes, or ''.

    Without a GPU it calls every engine invalid and sets no bit.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    diagnostics = int(runtime.get_engine_validity(data)[1])
    return ", ".join(text for bit, text in DIAGNOSTICS.items() if diagnostics & bit)


def _first(texts: Iterable[str]) -> str:
    return next((text.strip() for text in texts if text.strip()), "")


def _tensor(name: str, handle: Any, *, trt: Any, file: str) -> EngineTensor:
    kind, shape = handle.get_tensor_dtype(name), tuple(handle.get_tensor_shape(name))
    try:
        dtype = np.dtype(trt.nptype(kind))
    except TypeError as error:  # bfloat16 and smaller floats
        raise BundleError(
            f"{name} of {file} is {kind}, which numpy lacks",
            expected="float32 or float16",
            fix="export again",
        ) from error
    if any(size < 0 for size in shape[1:]):
        raise BundleError(
            f"{name} of {file} has shape {list(shape)}",
            expected="no unknown size but the batch",
            fix="export again",
        )
    return EngineTensor(name, dtype, shape[1:])


def _batches(name: str, handle: Any) -> tuple[int, int]:
    """Return the smallest and the largest batch of the input `name`."""
    fixed, *_ = handle.get_tensor_shape(name)
    if fixed > 0:
        return int(fixed), int(fixed)
    (smallest, *_), _, (largest, *_) = handle.get_tensor_profile_shape(name, 0)
    return int(smallest), int(largest)


def rows_of(batch: NDArray[Scalar], max_batch: int) -> list[NDArray[Scalar]]:
    """Cut a batch into parts of at most `max_batch` rows."""
    return [batch[i : i + max_batch] for i in range(0, len(batch), max_batch)]
