"""An engine made ready to run: deserialised, its inputs and outputs read by name and held against the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import BundleError, SystemProblem
from finedge.runtime.model_io import IoTensor, check_model_io
from finedge.runtime.trt.build.log import collected, logger

# What TensorRT for RTX says of an engine it will not run; one number may hold several.
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
class Tensor:
    """An input or output: `row` is its shape without the batch."""

    name: str
    dtype: np.dtype[np.generic]
    row: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [B, {', '.join(map(str, self.row))}]"

    @property
    def port(self) -> IoTensor:
        """What it can hold; the batch is for the profile to say."""
        return IoTensor(self.name, str(self.dtype), (None, *self.row))

    def size(self, batch: int) -> int:
        """Return the bytes of `batch` rows."""
        return batch * int(np.prod(self.row, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Engine:
    """A deserialised engine that takes batches of `least` to `most` frames.

    `trt` is the library's module, `handle` its ICudaEngine. `runtime` is only kept: the engine needs it.
    """

    trt: Any
    runtime: Any
    handle: Any
    input: Tensor
    outputs: tuple[Tensor, ...]
    least: int
    most: int

    @classmethod
    def load(cls, data: bytes, *, trt: Any, file: str) -> Engine:
        """Deserialise an engine; `file` is its name in errors.

        Raises:
            SystemProblem: TensorRT will not run it here; the text has TensorRT's own words.
            BundleError: it has no single input, a type that numpy lacks, or a size besides the batch that is open.
        """
        runtime, handle = _deserialise(data, trt=trt, file=file)
        tensors = {
            n: _tensor(n, handle, trt=trt, file=file)
            for n in (handle.get_tensor_name(i) for i in range(handle.num_io_tensors))
        }
        inputs = [n for n in tensors if handle.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise BundleError(f"{file} has inputs {inputs}", expected="one", fix="finedge build")
        least, most = _batches(inputs[0], handle)
        taken = tensors.pop(inputs[0])
        return cls(trt, runtime, handle, taken, tuple(tensors.values()), least, most)

    def check(self, bundle: Bundle, *, file: str) -> None:
        """Refuse an engine whose input or outputs are not the bundle's.

        Raises:
            BundleError: with what was found.
        """
        check_model_io(
            [self.input.port],
            [o.port for o in self.outputs],
            bundle,
            file=file,
            fix="finedge build",
        )


def _deserialise(data: bytes, *, trt: Any, file: str) -> tuple[Any, Any]:
    with collected(trt) as said:
        runtime = trt.Runtime(logger(trt))
        handle = runtime.deserialize_cuda_engine(data)
    if handle is None:  # TensorRT raises nothing: it logs, and returns nothing
        words = (
            _validity(runtime, data) or _first(said.errors) or _first(said) or "it gave no reason"
        )
        raise SystemProblem(
            f"{trt.__name__} {trt.__version__} will not load {file}: {words}",
            expected="an NVIDIA driver as new as this TensorRT needs, and an engine that this version built for this GPU",
            fix="finedge doctor shows driver and GPU; finedge build makes the engine again",
        )
    return runtime, handle


def _validity(runtime: Any, data: bytes) -> str:
    """Return what TensorRT for RTX finds wrong with the bytes, or '': without a GPU it calls every engine invalid, for no reason."""
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    diagnostics = int(runtime.get_engine_validity(data)[1])
    return ", ".join(text for bit, text in DIAGNOSTICS.items() if diagnostics & bit)


def _first(texts: Sequence[str]) -> str:
    return next((t.strip() for t in texts if t.strip()), "")


def _tensor(name: str, handle: Any, *, trt: Any, file: str) -> Tensor:
    kind, shape = handle.get_tensor_dtype(name), tuple(handle.get_tensor_shape(name))
    try:
        dtype = np.dtype(trt.nptype(kind))
    except TypeError as error:  # bfloat16 and smaller floats
        raise BundleError(
            f"{name} of {file} is {kind}, which numpy lacks",
            expected="float32 or float16",
            fix="export again",
        ) from error
    if any(d < 0 for d in shape[1:]):
        raise BundleError(
            f"{name} of {file} has shape {list(shape)}",
            expected="no unknown size but the batch",
            fix="export again",
        )
    return Tensor(name, dtype, shape[1:])


def _batches(name: str, handle: Any) -> tuple[int, int]:
    fixed, *_ = handle.get_tensor_shape(name)
    if fixed > 0:
        return int(fixed), int(fixed)
    (least, *_), _, (most, *_) = handle.get_tensor_profile_shape(name, 0)
    return int(least), int(most)


def rows_of(batch: NDArray[np.uint8], most: int) -> list[NDArray[np.uint8]]:
    """Cut a batch into parts of at most `most` frames."""
    return [batch[i : i + most] for i in range(0, len(batch), most)]
