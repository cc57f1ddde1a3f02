"""Segments of a model as engines: arrays by name in, arrays by name out.

Maps that cross a cut go through the host's memory. On a board whose GPU shares it nothing is
copied but the rows that go on. It was not run on hardware.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import BundleError, UsageError
from finedge.runtime.backend import SessionInfo
from finedge.runtime.cuda.binding import Cuda
from finedge.runtime.trt.engine import Engine, EngineTensor, rows_of
from finedge.runtime.trt.lane import ExecutionLane
from finedge.spec import Spec

Arrays = Mapping[str, NDArray[Any]]


class TensorRtSegment:
    """One open segment. Not for several threads.

    Args:
        engine: a loaded engine.
        cuda: CUDA, with every status checked.
        mapped: the GPU shares the CPU's memory: buffers are mapped, not copied.
        name: what it is, for the text of an error.
    """

    def __init__(self, engine: Engine, *, cuda: Cuda, mapped: bool, name: str) -> None:
        self.inputs = tuple(tensor.name for tensor in engine.inputs)
        self._max_batch, self._name = engine.max_batch, name
        self._lane: ExecutionLane | None = ExecutionLane(engine, cuda=cuda, mapped=mapped)

    def __call__(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Take arrays of one batch by name, more than the inputs too; return the outputs.

        A batch that is larger than the engine's largest is run in parts.
        """
        if self._lane is None:
            raise UsageError(f"the segment {self._name} is closed", expected="calls before close()")
        parts = zip(*(rows_of(arrays[name], self._max_batch) for name in self.inputs), strict=True)
        results = [_run(self._lane, part) for part in parts]
        return {name: np.concatenate([part[name] for part in results]) for name in results[0]}

    def close(self) -> None:
        """Free the engine and all memory; a second close does nothing."""
        if self._lane is not None:
            self._lane.close()
        self._lane = None


@dataclass(frozen=True)
class AllSegments:
    """Segments run one after another, as the whole model: a session without exits.

    It replays the golden frame, whose answers are those of the whole model.
    """

    segments: Sequence[TensorRtSegment]
    spec: Spec
    info: SessionInfo

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return float32 [B, ...] by output name."""
        arrays: dict[str, NDArray[Any]] = {self.spec.input.name: batch}
        for segment in self.segments:
            arrays |= segment(arrays)
        names = (output.name for output in self.spec.outputs)
        return {name: arrays[name].astype(np.float32, copy=False) for name in names}

    def close(self) -> None:
        """Close the segments."""
        for segment in self.segments:
            segment.close()


def check_chain(engines: Sequence[Engine], spec: Spec, *, files: Sequence[str]) -> None:
    """Refuse engines that do not follow one another.

    Raises:
        BundleError: one reads what no earlier one writes, or an output of the spec is missing.
    """
    size = spec.input
    frames = EngineTensor(size.name, np.dtype(np.uint8), (size.height, size.width, 3))
    written = {frames.name: frames}
    for engine, file in zip(engines, files, strict=True):
        for tensor in engine.inputs:
            if written.get(tensor.name) != tensor:
                raise BundleError(
                    f"{file} reads {tensor}",
                    expected=f"{written.get(tensor.name, 'what an earlier segment writes')}",
                    fix="finedge build",
                )
        written |= {tensor.name: tensor for tensor in engine.outputs}
    for missing in _missing(written, spec):
        raise BundleError(
            f"the segments write no {missing}", expected="every output", fix="finedge build"
        )


def _missing(written: Mapping[str, EngineTensor], spec: Spec) -> Iterator[str]:
    row = (len(spec.labels),)
    for output in spec.outputs:
        if output.name not in written or written[output.name].row != row:
            yield f"{output.name} [B, {row[0]}]"


def _run(lane: ExecutionLane, batch: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    lane.start(*batch)
    return lane.results()
