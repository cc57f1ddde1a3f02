"""The real session on engines of the mock: lifetimes, and a failure of every call."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest
import tensorrt as trt

from finedge.errors import BundleError, SystemProblem, UsageError
from finedge.runtime.cuda.binding import OutOfDeviceMemory
from finedge.runtime.trt.context import INFER_SHAPES_SINCE
from finedge.runtime.trt.library import numbers
from tests.runtime.trt.bindings.inside.mock_engine import bench
from tests.runtime.trt.conftest import frames, right

# Every call of CUDA's API that a session makes, releases apart.
CALLS = (
    "cudaStreamCreateWithFlags",
    "cudaMalloc",
    "cudaHostAlloc",
    "cudaHostGetDevicePointer",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "cudaStreamBeginCapture",
    "cudaStreamEndCapture",
    "cudaGraphInstantiate",
    "cudaGraphLaunch",
)
IS_CALLED = pytest.mark.skipif(
    numbers(trt.__version__) < INFER_SHAPES_SINCE, reason="its failure would end the process there"
)
BOTH = pytest.mark.parametrize("integrated", [False, True], ids=["copied", "mapped"])


def use_all(rig, sessions):
    """Open a session, put it into `sessions`, and use every method; answers must be right."""
    sessions.append(session := rig.open())
    assert right(session(frames(2)), frames(2))
    assert all(right(a, frames(1)) for a in session.stream([frames(1)] * 3))
    session.profile(frames(1), runs=1)


def failures(*, call, integrated):
    """Yield a bench for each time that the session makes `call`: that one fails."""
    use_all(whole := bench(integrated=integrated), sessions := [])
    names = tuple(whole.cuda.asked)  # without those of close()
    sessions[0].close()
    for index, name in enumerate(names):
        if name == call:
            yield bench(fail_at=index, integrated=integrated)


def test_the_calls_that_may_fail_are_all_of_them():
    names = set()
    for integrated in (False, True):
        use_all(rig := bench(integrated=integrated), [])
        names |= set(rig.cuda.asked)
    assert names == set(CALLS)


@BOTH
@pytest.mark.parametrize("call", CALLS)
def test_a_failed_call_is_named_and_nothing_leaks(caplog, call, integrated):
    """A graph that cannot be captured is no error: the session works without it."""
    for rig in failures(call=call, integrated=integrated):
        caplog.clear()
        sessions = []
        try:
            use_all(rig, sessions)
        except SystemProblem as error:
            assert call in error.what  # noqa: PT017 - some failures are no error
        else:
            assert "no CUDA graph for batches of" in caplog.text
        for session in sessions:
            session.close()
            session.close()
        assert rig.cuda.live() == []
        assert rig.cuda.capture == {}, "a stream is left in its capture"
        assert len(rig.contexts) == 0
        assert rig.problems == []


@BOTH
def test_a_session_frees_everything_when_it_is_closed(integrated):
    """The fake refuses to free memory that a context uses, and a stream that still works."""
    use_all(rig := bench(integrated=integrated), sessions := [])
    assert {"device", "host", "stream"} <= set(rig.cuda.live())
    sessions[0].close()
    assert rig.cuda.live() == []
    assert len(rig.contexts) == 0


def test_a_session_that_nobody_closed_is_freed_with_its_last_reference():
    session = (rig := bench()).open()
    session(frames(1))
    del session
    gc.collect()
    assert rig.cuda.live() == []


def test_memory_that_is_full_says_so_at_every_allocation():
    session = (rig := bench()).open()
    calls = tuple(rig.cuda.asked)
    session.close()
    for index, call in enumerate(calls):
        if call == "cudaStreamCreateWithFlags":
            continue
        rig = bench(fail_at=index, fail_with=2)
        with pytest.raises(SystemProblem, match=rf"{call} found no room for .* MiB are free"):
            rig.open()
        assert rig.cuda.live() == []


@pytest.mark.parametrize(
    "call",
    [
        "create_execution_context",
        "set_input_shape",
        "set_tensor_address",
        pytest.param("infer_shapes", marks=IS_CALLED),
        "execute_async_v3",
    ],
)
def test_a_call_of_tensorrt_that_returns_false_is_named(call):
    session = (rig := bench(refuse=[call])).open()
    with pytest.raises(SystemProblem, match=call):
        session(frames(1))
    session.close()
    assert rig.cuda.live() == []


def test_what_tensorrt_logs_is_quoted_once(caplog):
    session = bench(refuse=["create_execution_context"], log="[engine.cpp] no such profile").open()
    with pytest.raises(SystemProblem, match=r"batches of 1: .*_context failed: \[engine\.cpp\]"):
        session(frames(1))
    assert "engine.cpp" not in caplog.text, "once is enough"


def test_an_error_that_is_only_logged_reaches_the_log(caplog):
    session = bench(log="a warning of the context").open()
    assert right(session(frames(1)), frames(1))
    assert "a warning of the context" in caplog.text


@pytest.mark.parametrize("call", ["deserialize_cuda_engine", "create_execution_context"])
@pytest.mark.parametrize(
    "words",
    [
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "Requested amount of GPU memory (1073741824 bytes) could not be allocated.",
    ],
)
def test_a_gpu_that_is_full_is_named_with_what_to_do(call, words):
    rig = bench(refuse=[call], log=words)
    with pytest.raises(OutOfDeviceMemory, match=rf"{re.escape(words)}\n.*end what else uses"):
        rig.open()(frames(1))


@pytest.mark.skipif(numbers(trt.__version__) < (10, 13), reason="these bindings crash there")
def test_a_second_context_whose_profile_cannot_be_set_is_named():
    session = (rig := bench(refuse=["set_optimization_profile_async"])).open()
    assert right(session(frames(1)), frames(1))
    with pytest.raises(SystemProblem, match="optimization profile"):
        session(frames(2))
    session.close()
    assert rig.cuda.live() == []


def test_an_engine_that_cannot_be_captured_runs_without_a_graph(caplog):
    session = (rig := bench(refuse_capture=True)).open()
    for seed in range(2):
        assert right(session(frames(2, seed=seed)), frames(2, seed=seed))
    assert caplog.text.count("no CUDA graph for batches of 2") == 1
    assert rig.cuda.capture == {}
    session.close()
    assert rig.cuda.live() == []


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"logits": ("bfloat16", (3,))}, "numpy lacks"),
        ({"logits": (np.dtype(np.float32), (-1,))}, "no unknown size"),
    ],
)
def test_an_engine_with_an_output_that_cannot_be_read_is_refused(outputs, text):
    with pytest.raises(BundleError, match=text):
        bench(outputs=outputs).open()


def test_a_closed_session_refuses_and_a_wrong_batch_is_refused(session):
    with pytest.raises(UsageError, match="uint8"):
        session(frames(1)[0])
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session(frames(1))
