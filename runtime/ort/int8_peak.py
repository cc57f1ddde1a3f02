"""The fastest INT8 product that ONNX Runtime reaches on this CPU: the peak of an INT8 model.

It is one product of U8 activations and S8 weights, whose operands fit into the second-level cache.
The same kernels run a model's layers. The peak is measured, and not taken from a data sheet.
"""

from __future__ import annotations

import functools
import time

import numpy as np

from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.int8_products import PROVIDER
from finedge.runtime.ort.session import session_settings

ROWS, INNER, COLUMNS = 256, 512, 512  # 67 million multiply-accumulates; 0.13 MB x 0.26 MB
BUDGET_S = 0.1
MIN_RUNS = 3


@functools.cache
def int8_peak(threads: int | None = None) -> float:
    """Return the multiply-accumulates a second of the fastest of many runs, once in a process.

    It takes 0.1 s, after 3 runs for warm-up. `threads` is that of `SessionOptions`.
    """
    import onnxruntime

    options = session_settings(SessionOptions(threads, spin=True))
    session = onnxruntime.InferenceSession(_model(), options, providers=[PROVIDER])
    rng = np.random.default_rng(0)
    feeds = {"x": rng.integers(0, 256, (ROWS, INNER), dtype=np.uint8)}
    for _ in range(MIN_RUNS):
        session.run(None, feeds)
    times: list[float] = []
    until = time.perf_counter() + BUDGET_S
    while len(times) < MIN_RUNS or time.perf_counter() < until:
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return ROWS * INNER * COLUMNS / min(times)


def _model() -> bytes:
    """Return the product x [256, 512] U8 times w [512, 512] S8 into int32."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(1).integers(-64, 64, (INNER, COLUMNS), dtype=np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    source = helper.make_tensor_value_info("x", TensorProto.UINT8, [ROWS, INNER])
    answer = helper.make_tensor_value_info("y", TensorProto.INT32, [ROWS, COLUMNS])
    stored = [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph([node], "peak", [source], [answer], stored)
    opsets = [helper.make_opsetid("", 13)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return model
