"""The real session on engines of the mock: right answers, two lanes, lifetimes, every failure."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest
import tensorrt as trt

from finedge.errors import BundleError, SystemProblem, UsageError
from finedge.runtime.backend import HasStream, Session
from finedge.runtime.trt import input_memory
from finedge.runtime.trt.cuda import OutOfDeviceMemory
from finedge.runtime.trt.library import numbers
from tests.runtime.trt.bindings.inside.mock_engine import SCRATCH, bench, left_over
from tests.runtime.trt.conftest import OUTPUTS, answer, frames

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
BOTH = pytest.mark.parametrize("integrated", [False, True], ids=["copied", "mapped"])


def right(outputs, batch):
    expected = answer(batch)
    assert set(outputs) == set(expected)
    return all(
        outputs[name].dtype == np.float32
        and np.array_equal(outputs[name], values.astype(OUTPUTS[name][0]).astype(np.float32))
        for name, values in expected.items()
    )


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """Leave what was imported out of the collections after each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left():
    """Engines, contexts and runtimes are gone after each test, each after those that use it."""
    yield
    assert left_over() == {"contexts": 0, "engines": 0, "runtimes": 0, "too_early": 0}


@pytest.fixture
def made():
    made = bench()
    yield made
    assert made.problems == []


@pytest.fixture
def session(made):
    session = made.open()
    yield session
    session.close()


def test_it_is_a_session_that_streams(session):
    typed: Session = session
    assert isinstance(typed, HasStream)


def test_an_engine_is_read_by_name():
    engine = bench().load()
    assert str(engine.input) == "frames: uint8 [B, 4, 4, 3]"
    assert [str(tensor) for tensor in engine.outputs] == [
        "logits: float32 [B, 3]",
        "tap/half: float16 [B, 2, 2]",
    ]
    assert (engine.min_batch, engine.max_batch) == (1, 4)


# --- answers ---


@BOTH
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_batch_is_answered_the_first_time_and_later(size, integrated):
    session = bench(integrated=integrated).open()
    for seed in range(3):
        assert right(session(frames(size, seed=seed)), frames(size, seed=seed))


def test_sizes_may_alternate(session):
    for size in (1, 3, 1, 4, 3, 1):
        assert right(session(frames(size, seed=size)), frames(size, seed=size))


def test_answers_stay_what_they_were(session):
    first = session(frames(2))
    session(frames(2, seed=9))
    assert right(first, frames(2))


def test_a_larger_batch_goes_in_parts(session):
    batch = frames(11)
    assert right(session(batch), batch)


def test_a_batch_that_is_not_contiguous_is_answered_as_its_copy(session):
    batch = frames(2)[:, :, ::-1]
    assert right(session(batch), batch)


@pytest.mark.parametrize("profile", [(3, 3, 4), (4, 4, 4)])
def test_a_batch_below_the_smallest_is_padded(profile):
    session = bench(profile=profile).open()
    assert right(session(frames(1)), frames(1))
    assert right(session(frames(5)), frames(5))


def test_an_engine_of_one_size_takes_every_batch():
    session = bench(fixed=2).open()
    assert right(session(frames(5)), frames(5))


# --- what is kept ---


def test_memory_is_allocated_once_for_the_largest_batch(made, session):
    tensors = [4 * 48, 4 * 12, 4 * 8]
    assert made.cuda.sizes("device") == sorted([SCRATCH, *tensors])
    assert made.cuda.sizes("host") == sorted(tensors)
    before = made.cuda.sizes("device"), made.cuda.sizes("host")
    for size in (1, 2, 4, 11):
        session(frames(size))
    assert (made.cuda.sizes("device"), made.cuda.sizes("host")) == before


def test_a_size_that_ran_before_makes_nothing_new_and_is_one_launch(made, session):
    session(frames(2))
    live, contexts = made.cuda.live(), len(made.contexts)
    made.cuda.calls.clear()
    assert right(session(frames(2, seed=1)), frames(2, seed=1))
    assert (made.cuda.live(), len(made.contexts)) == (live, contexts)
    names = made.cuda.names()
    assert names.count("cudaGraphLaunch") == 1
    assert "execute_async_v3" not in names, "the graph has the kernels and the copies"


def test_each_size_has_one_graph_and_one_context(made, session):
    for size in (1, 3, 1, 4, 3, 1):
        session(frames(size))
    assert made.cuda.live().count("executable") == 3
    assert "graph" not in made.cuda.live(), "only what is launched is kept"
    assert len(made.contexts) == 3
    assert len({context.scratch for context in made.contexts}) == 1, "shared"


def test_copies_are_as_long_as_the_batch(made, session):
    session(frames(3))
    copies = {call[1:3] for call in made.cuda.calls if call[0] == "cudaMemcpyAsync"}
    assert copies == {
        ("cudaMemcpyHostToDevice", 3 * 48),
        ("cudaMemcpyDeviceToHost", 3 * 12),
        ("cudaMemcpyDeviceToHost", 3 * 8),
    }


def test_shared_memory_is_mapped_and_nothing_is_copied():
    made = bench(integrated=True)
    session = made.open()
    assert right(session(frames(3)), frames(3))
    assert "cudaMemcpyAsync" not in made.cuda.names()
    assert made.cuda.sizes("device") == [SCRATCH], "only the scratch memory"


@pytest.mark.parametrize(("slow", "fast"), [("mapped", "copied"), ("copied", "mapped")])
def test_an_integrated_gpu_keeps_the_faster_memory_of_its_input(monkeypatch, slow, fast):
    session = (made := bench(integrated=True)).open()
    monkeypatch.setattr(input_memory, "perf_counter", lambda: made.cuda.now)
    made.cuda.costs = {slow: 2.0, fast: 1.0}
    times = session.choose_input_memory(frames(3))
    assert times[fast] < times[slow]
    assert session.input_memory == fast
    batches = [frames(n, seed=n) for n in (2, 4, 1)]
    assert all(right(a, b) for a, b in zip(session.stream(batches), batches, strict=True))
    session.close()
    assert made.cuda.live() == []


# --- two batches at once ---


def test_stream_answers_every_batch_in_order(session):
    batches = [frames(n, seed=n) for n in (2, 4, 11, 1, 9, 3)]
    answers = list(session.stream(iter(batches)))
    assert len(answers) == len(batches)
    assert all(right(a, b) for a, b in zip(answers, batches, strict=True))


def test_a_stream_keeps_two_batches_on_the_gpu_and_a_call_one(made, session):
    session(frames(11))
    assert made.cuda.most_busy == 1
    list(session.stream([frames(4)] * 4))
    assert made.cuda.most_busy == 2


def test_the_second_lane_is_made_once_and_only_for_streams(made, session):
    session(frames(4))
    assert made.cuda.live().count("stream") == 1
    list(session.stream([frames(1)] * 3))
    live = made.cuda.live()
    list(session.stream([frames(1)] * 3))
    assert made.cuda.live() == live
    assert live.count("stream") == 2


def test_a_stream_that_is_left_early_leaves_the_session_usable(session):
    stream = session.stream(frames(2, seed=i) for i in range(9))
    next(stream)
    stream.close()
    assert right(session(frames(2)), frames(2))
    assert right(next(session.stream([frames(3)])), frames(3))


def test_a_call_in_the_middle_of_a_stream_is_refused(session):
    stream = session.stream([frames(2)] * 5)
    next(stream)
    with pytest.raises(UsageError, match="under way"):
        session(frames(2))
    assert len(list(stream)) == 4


def test_a_stream_whose_source_fails_settles(made, session):
    def source():
        yield frames(2)
        raise OSError("no camera")

    with pytest.raises(OSError, match="no camera"):
        list(session.stream(source()))
    assert right(session(frames(2)), frames(2))
    session.close()
    assert made.cuda.live() == []


def test_a_stream_over_a_closed_session_ends_with_an_error(made, session):
    stream = session.stream([frames(2)] * 5)
    next(stream)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        next(stream)
    assert made.cuda.live() == []


# --- layers ---


def test_layers_are_timed_in_a_separate_context(made, session):
    session(frames(2))
    live = made.cuda.live()
    assert session.profile(frames(2), runs=4) == [("conv", 0.25), ("gemm", 0.5)]
    assert not any(context.has_profiler for context in made.contexts)
    assert made.cuda.live() == live
    assert right(session(frames(2)), frames(2))


@pytest.mark.parametrize(("size", "runs"), [(5, 1), (1, 0)])
def test_a_profile_of_too_many_frames_or_no_runs_is_refused(session, size, runs):
    with pytest.raises(UsageError, match="profiled runs"):
        session.profile(frames(size), runs=runs)


# --- lifetimes and failures ---


def use_all(made, sessions):
    """Open a session, put it into `sessions`, and use every method; answers must be right."""
    sessions.append(session := made.open())
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
        use_all(made := bench(integrated=integrated), [])
        names |= set(made.cuda.asked)
    assert names == set(CALLS)


@BOTH
@pytest.mark.parametrize("call", CALLS)
def test_a_failed_call_is_named_and_nothing_leaks(caplog, call, integrated):
    """A graph that cannot be captured is no error: the session works without it."""
    for made in failures(call=call, integrated=integrated):
        caplog.clear()
        sessions = []
        try:
            use_all(made, sessions)
        except SystemProblem as error:
            assert call in error.what  # noqa: PT017 - some failures are no error
        else:
            assert "no CUDA graph for batches of" in caplog.text
        for session in sessions:
            session.close()
            session.close()
        assert made.cuda.live() == []
        assert made.cuda.capture == {}, "a stream is left in its capture"
        assert len(made.contexts) == 0
        assert made.problems == []


@BOTH
def test_a_session_frees_everything_when_it_is_closed(integrated):
    """The fake refuses to free memory that a context uses, and a stream that still works."""
    use_all(made := bench(integrated=integrated), sessions := [])
    assert {"device", "host", "stream"} <= set(made.cuda.live())
    sessions[0].close()
    assert made.cuda.live() == []
    assert len(made.contexts) == 0


def test_a_session_that_nobody_closed_is_freed_with_its_last_reference():
    session = (made := bench()).open()
    session(frames(1))
    del session
    gc.collect()
    assert made.cuda.live() == []


def test_memory_that_is_full_says_so_at_every_allocation():
    session = (made := bench()).open()
    calls = tuple(made.cuda.asked)
    session.close()
    for index, call in enumerate(calls):
        if call == "cudaStreamCreateWithFlags":
            continue
        made = bench(fail_at=index, fail_with=2)
        with pytest.raises(SystemProblem, match=rf"{call} found no room for .* MiB are free"):
            made.open()
        assert made.cuda.live() == []


@pytest.mark.parametrize(
    "call",
    [
        "create_execution_context",
        "set_input_shape",
        "set_tensor_address",
        "infer_shapes",
        "execute_async_v3",
    ],
)
def test_a_call_of_tensorrt_that_returns_false_is_named(call):
    session = (made := bench(refuse=[call])).open()
    with pytest.raises(SystemProblem, match=call):
        session(frames(1))
    session.close()
    assert made.cuda.live() == []


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
    made = bench(refuse=[call], log=words)
    with pytest.raises(OutOfDeviceMemory, match=rf"{re.escape(words)}\n.*end what else uses"):
        made.open()(frames(1))


@pytest.mark.skipif(numbers(trt.__version__) < (10, 13), reason="these bindings crash there")
def test_a_second_context_whose_profile_cannot_be_set_is_named():
    session = (made := bench(refuse=["set_optimization_profile_async"])).open()
    assert right(session(frames(1)), frames(1))
    with pytest.raises(SystemProblem, match="optimization profile"):
        session(frames(2))
    session.close()
    assert made.cuda.live() == []


def test_an_engine_that_cannot_be_captured_runs_without_a_graph(caplog):
    session = (made := bench(refuse_capture=True)).open()
    for seed in range(2):
        assert right(session(frames(2, seed=seed)), frames(2, seed=seed))
    assert caplog.text.count("no CUDA graph for batches of 2") == 1
    assert made.cuda.capture == {}
    session.close()
    assert made.cuda.live() == []


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
