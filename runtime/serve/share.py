"""One session for two threads: a camera's frames, and the pictures of requests."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.backend import Session, SessionInfo
from finedge.runtime.classifier import Classifier


@dataclass(frozen=True)
class SharedSession:
    """A session that one thread calls at a time: some backends reuse the buffers of a call."""

    inner: Session
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def info(self) -> SessionInfo:
        """What runs."""
        return self.inner.info

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Wait for the other thread's call, then answer."""
        with self.lock:
            return self.inner(batch)

    def close(self) -> None:
        """Free the model."""
        self.inner.close()


def share_session(classifier: Classifier) -> Classifier:
    """Return a classifier whose session any thread may call. Close the original one only."""
    return replace(classifier, session=SharedSession(classifier.session))
