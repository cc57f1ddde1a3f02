"""Interleaved times of models: CPU time of one frame on one thread of ONNX Runtime.

CPU time and not wall time, because other programs take turns on the cores. The models run in turn,
in an order that changes each round, so that all see the same clock rate and cache.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.int8_products import PROVIDER
from finedge.runtime.ort.session import open_model, session_settings

ROUNDS = 24
WARM_UP = 3
# Frames in a row: the first after a change finds the other model's weights in the cache.
BLOCK = 3


def frame_times(
    models: Sequence[onnx.ModelProto], frame: NDArray[np.uint8], *, rounds: int = ROUNDS
) -> list[float]:
    """Return the median milliseconds of CPU time that each model takes for one frame.

    Args:
        models: forms of one model, with one input.
        frame: uint8 [H, W, 3], preprocessed.
        rounds: how often each model has its turn.
    """
    sessions = [_open(model) for model in models]
    feeds = {sessions[0].get_inputs()[0].name: frame[None]}
    for session in sessions:
        _block(session, feeds, runs=WARM_UP)
    times: list[list[float]] = [[] for _ in sessions]
    order, shuffle = list(range(len(sessions))), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for index in order:
            times[index].append(_block(sessions[index], feeds, runs=BLOCK))
    return [statistics.median(samples) for samples in times]


def _block(
    session: onnxruntime.InferenceSession, feeds: dict[str, NDArray[np.uint8]], *, runs: int
) -> float:
    """Run a few frames; return the CPU milliseconds of the fastest."""
    fastest = float("inf")
    for _ in range(runs):
        start = time.thread_time()  # the calling thread is the only one
        session.run(None, feeds)
        fastest = min(fastest, time.thread_time() - start)
    return 1000 * fastest


def _open(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    settings = session_settings(SessionOptions(threads=1))
    content = model.SerializeToString()
    return open_model(content, settings, providers=[PROVIDER], name="the model to time")
