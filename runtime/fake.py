"""A backend that returns the scores a test gives it: for tests of everything above a backend."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finedge import __version__
from finedge.bundle import Bundle
from finedge.errors import UsageError
from finedge.runtime.backend import SessionInfo, SessionOptions, check_batch, pick_file
from finedge.runtime.model_io import check_scores

MAX_INPUTS = 100  # batches that are kept: a stream has no end

# One row of scores [classes] for each output name.
Row = Mapping[str, NDArray[np.float32]]
# A row, or a function that makes one of a preprocessed frame (uint8 [H, W, 3]).
FakeScores = Row | Callable[[NDArray[np.uint8]], Row]


@dataclass
class FakeBackend:
    """Answers each frame of a batch with `answer`, after `latency_s` seconds a call.

    Without an answer, a class scores by how near its index is to the frame's mean grey level;
    both lie on [0, 1]. `inputs` keeps the newest batches. The session options are ignored:
    nothing is computed.
    """

    options: SessionOptions = field(default_factory=SessionOptions)
    answer: FakeScores | None = None
    latency_s: float = 0.0
    inputs: deque[NDArray[np.uint8]] = field(default_factory=lambda: deque(maxlen=MAX_INPUTS))
    name: str = field(default="fake", init=False)

    def why_not(self) -> str | None:
        """Return None: it runs everywhere."""
        return None

    def open(self, bundle: Bundle, *, variant: str) -> FakeSession:
        """Pretend to open a variant that the bundle must hold."""
        file, versions = pick_file(bundle, variant), {"finedge": __version__}
        return FakeSession(self, bundle, SessionInfo("fake", "none", file, variant, versions))


@dataclass
class FakeSession:
    """An open session of the fake backend; `backend` may be changed while it is open."""

    backend: FakeBackend
    bundle: Bundle
    info: SessionInfo
    closed: bool = False

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return float32 [B, classes] by output name."""
        check_batch(batch, self.bundle.spec)
        if self.closed:
            raise UsageError("the fake session is closed", expected="calls before close()")
        self.backend.inputs.append(batch)
        time.sleep(self.backend.latency_s)
        rows = [self._row(frame) for frame in batch]
        outputs = {
            name: np.stack([np.asarray(row[name], np.float32) for row in rows]) for name in rows[0]
        }
        check_scores(outputs, self.bundle.spec, rows=len(batch), file=self.info.file)
        return outputs

    def close(self) -> None:
        """Refuse further calls."""
        self.closed = True

    def _row(self, frame: NDArray[np.uint8]) -> Row:
        answer = self.backend.answer
        if answer is None:
            levels = np.linspace(0, 1, len(self.bundle.spec.labels))
            nearness = -np.abs(levels - frame.mean() / 255)
            return {o.name: nearness for o in self.bundle.spec.outputs}
        return answer(frame) if callable(answer) else answer
