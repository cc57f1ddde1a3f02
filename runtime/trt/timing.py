"""How long an engine takes for a batch on this machine's GPU."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.backend import SessionInfo
from finedge.runtime.trt.session import TensorRtSession, open_session
from finedge.spec import Spec

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.runtime.trt.library import TrtLibrary

# Batches that `batch_milliseconds` runs before and while it measures.
WARM_UP, RUNS = 10, 50


def batch_milliseconds(data: bytes, bundle: Bundle, *, batch: int, library: TrtLibrary) -> float:
    """Return the median milliseconds of a batch from host memory to host memory, on this GPU.

    Only to choose between two engines; latencies to report come from `finedge benchmark`. The
    plugin need not be named, because the process that built the engine has registered it.
    """
    frames = random_frames(bundle.spec, batch)
    info = SessionInfo(library.name, "GPU", "an engine that was just built", "unknown")
    session = open_session(data, bundle, library=library, info=info)
    try:
        times = [_milliseconds(session, frames) for _ in range(WARM_UP + RUNS)]
    finally:
        session.close()
    return statistics.median(times[WARM_UP:])


def random_frames(spec: Spec, batch: int) -> NDArray[np.uint8]:
    """Return a batch to measure with."""
    shape = (batch, spec.input.height, spec.input.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _milliseconds(session: TensorRtSession, frames: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    session(frames)
    return (time.perf_counter() - start) * 1e3
