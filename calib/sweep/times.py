"""The CPU time of bundles, interleaved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.golden import synthetic_frame
from finedge.preprocess import preprocess_batch
from finedge.runtime.backend import Session
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.variant.timing import Interleaved, Plan, Query

PLAN = Plan(looks=(24,), max_s=120.0)


def cpu_times(
    bundles: Mapping[str, Bundle], backend: OnnxRuntimeBackend, *, plan: Plan = PLAN
) -> dict[str, float]:
    """Return median CPU milliseconds of one INT8 inference by bundle, without preprocessing.

    Blocks of all bundles take turns in a shuffled order. The clock is that of the calling thread,
    so the backend must run in one thread.
    """
    with ExitStack() as exits:
        queries: dict[str, Query] = {}
        for name, bundle in bundles.items():
            session = exits.enter_context(closing(backend.open(bundle, variant="int8")))
            queries[name] = _query(session, bundle)
        timing = Interleaved(queries, plan=plan, cpu_clock=time.thread_time)()
    return {name: round(float(np.median(ms)), 4) for name, ms in timing.cpu_ms.items()}


def _query(session: Session, bundle: Bundle) -> Query:
    batch: NDArray[np.uint8] = preprocess_batch(
        [synthetic_frame()], bundle.spec.preprocess, count=1
    )
    return lambda: session(batch)
