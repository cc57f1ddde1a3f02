"""A backend that answers what it is told: for tests of everything above a backend, on machines that have none."""

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
from finedge.runtime.ports import check_answers

KEPT = 100  # batches: a stream has no end

# One row of scores [classes] per output name, or a function of one preprocessed frame (uint8 [H, W, 3]) that returns it.
Answer = (
    Mapping[str, NDArray[np.float32]]
    | Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]
)


@dataclass
class FakeBackend:
    """Answers each frame of a batch with `answer`, after `latency_s` seconds a call; `inputs` keeps the newest batches it was given.

    Without an answer the score of a class is how near its index is to the frame's mean grey level, both on [0, 1].
    The session options are ignored: nothing is computed.
    """

    options: SessionOptions = field(default_factory=SessionOptions)
    answer: Answer | None = None
    latency_s: float = 0.0
    inputs: deque[NDArray[np.uint8]] = field(default_factory=lambda: deque(maxlen=KEPT))
    name: str = field(default="fake", init=False)

    def why_not(self) -> str | None:
        """Return None: it runs everywhere."""
        return None

    def open(self, bundle: Bundle, *, variant: str) -> FakeSession:
        """Pretend to open a variant that the bundle must hold."""
        return FakeSession(
            self,
            bundle,
            SessionInfo(
                "fake", "none", pick_file(bundle, variant), variant, {"finedge": __version__}
            ),
        )


@dataclass
class FakeSession:
    """An open pretence; `backend` may be changed while it is open."""

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
        answers = {
            name: np.stack([np.asarray(row[name], np.float32) for row in rows]) for name in rows[0]
        }
        check_answers(answers, self.bundle.spec, rows=len(batch), file=self.info.file)
        return answers

    def close(self) -> None:
        """Refuse further calls."""
        self.closed = True

    def _row(self, frame: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        answer = self.backend.answer
        if answer is None:
            grey = -np.abs(np.linspace(0, 1, len(self.bundle.spec.labels)) - frame.mean() / 255)
            return {o.name: grey for o in self.bundle.spec.outputs}
        return answer(frame) if callable(answer) else answer
