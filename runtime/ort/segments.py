"""Segments of a model in ONNX Runtime on the CPU: arrays by name in, arrays by name out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.int8_products import PROVIDER
from finedge.runtime.ort.session import open_model, run_error, session_settings

if TYPE_CHECKING:
    import onnxruntime

Arrays = Mapping[str, NDArray[Any]]


class OnnxRuntimeSegment:
    """One open segment.

    Args:
        session: ONNX Runtime's session of it.
        name: what it is, for the text of an error.
    """

    def __init__(self, session: onnxruntime.InferenceSession, name: str) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._name = name
        self.inputs = tuple(tensor.name for tensor in session.get_inputs())
        self.outputs = tuple(tensor.name for tensor in session.get_outputs())

    def __call__(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Take arrays of one batch by name, more than the inputs too; return the outputs."""
        if self._session is None:
            raise UsageError(f"the segment {self._name} is closed", expected="calls before close()")
        try:
            results = self._session.run(self.outputs, {n: arrays[n] for n in self.inputs})
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise run_error(self._name, error) from error
        return dict(zip(self.outputs, results, strict=True))

    def close(self) -> None:
        """Free the segment."""
        self._session = None


def open_segment(model: bytes, *, name: str, options: SessionOptions) -> OnnxRuntimeSegment:
    """Open the bytes of a segment.

    Raises:
        BundleError: ONNX Runtime refuses it.
    """
    settings = session_settings(options)
    return OnnxRuntimeSegment(open_model(model, settings, providers=[PROVIDER], name=name), name)


def run_whole(model: bytes, frames: NDArray[np.uint8], *, name: str) -> dict[str, NDArray[Any]]:
    """Return the outputs of a whole model on frames, uint8 [N, H, W, 3], with exact products."""
    return run_in_segments([model], frames, name=name)


def run_in_segments(
    parts: Sequence[bytes], frames: NDArray[np.uint8], *, name: str
) -> dict[str, NDArray[Any]]:
    """Return every array that the segments make of frames; no frame leaves early."""
    options = SessionOptions(exact=True)
    opened = [open_segment(part, name=name, options=options) for part in parts]
    arrays: dict[str, NDArray[Any]] = {opened[0].inputs[0]: frames}
    for segment in opened:
        arrays |= segment(arrays)
    return arrays
