"""How long an engine takes for a batch: only to choose between two of them; latencies to report come from `finedge benchmark`."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.backend import Session, SessionInfo

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.runtime.trt.library import TrtLibrary

WARM_UP, RUNS = 10, 50


def milliseconds(data: bytes, bundle: Bundle, *, batch: int, library: TrtLibrary) -> float:
    """Return the median milliseconds of a batch from host memory to host memory, on this machine's GPU.

    The plugin need not be named: whoever built the engine in this process has registered it. Not run on hardware.
    """
    from finedge.runtime.trt.backend import open_session

    shape = (batch, bundle.spec.input.height, bundle.spec.input.width, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    session = open_session(
        data, bundle, library=library, info=SessionInfo(library.name, "GPU", "candidate", "unknown")
    )
    try:
        took = [_timed(session, frames) for _ in range(WARM_UP + RUNS)]
    finally:
        session.close()
    return statistics.median(took[WARM_UP:])


def _timed(session: Session, frames: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    session(frames)
    return (time.perf_counter() - start) * 1e3
