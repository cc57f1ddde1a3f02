"""A session on a fake GPU: right answers, padding, lifetimes, and a failure of every call."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest

from finedge.errors import BundleError, SystemProblem, UsageError
from finedge.runtime.backend import HasStream, Session
from finedge.runtime.trt.cuda import OutOfDeviceMemory
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


def right(outputs, batch):
    expected = answer(batch)
    assert set(outputs) == set(expected)
    return all(
        outputs[name].dtype == np.float32
        and np.array_equal(outputs[name], values.astype(OUTPUTS[name][0]).astype(np.float32))
        for name, values in expected.items()
    )


@pytest.fixture
def made(bench):
    return bench()


@pytest.fixture
def session(made):
    return made.open()


def test_it_is_a_session_that_streams(session):
    typed: Session = session
    assert isinstance(typed, HasStream)


# --- answers ---


@pytest.mark.parametrize("integrated", [False, True], ids=["copied", "mapped"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_batch_is_answered_the_first_time_and_later(bench, size, integrated):
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
def test_a_batch_below_the_smallest_is_padded(bench, profile):
    session = bench(profile=profile).open()
    assert right(session(frames(1)), frames(1))
    assert right(session(frames(5)), frames(5))


def test_an_engine_of_one_size_takes_every_batch(bench):
    session = bench(fixed=2).open()
    assert right(session(frames(5)), frames(5))


# --- what is kept ---


def test_memory_is_allocated_once_for_the_largest_batch(made, session):
    scratch, *tensors = 5000, 4 * 48, 4 * 12, 4 * 8
    assert made.cuda.sizes("device") == sorted([scratch, *tensors])
    assert made.cuda.sizes("host") == sorted(tensors)
    before = made.cuda.sizes("device"), made.cuda.sizes("host")
    for size in (1, 2, 4, 11):
        session(frames(size))
    assert (made.cuda.sizes("device"), made.cuda.sizes("host")) == before


def test_a_size_that_ran_before_makes_nothing_new_and_is_one_launch(made, session):
    session(frames(2))
    live, contexts = made.cuda.live(), len(made.trt.contexts)
    made.cuda.calls.clear()
    assert right(session(frames(2, seed=1)), frames(2, seed=1))
    assert (made.cuda.live(), len(made.trt.contexts)) == (live, contexts)
    names = made.cuda.names()
    assert names.count("cudaGraphLaunch") == 1
    assert "execute_async_v3" not in names, "the graph has the kernels and the copies"


def test_each_size_has_one_graph_and_one_context(made, session):
    for size in (1, 3, 1, 4, 3, 1):
        session(frames(size))
    assert made.cuda.live().count("executable") == 3
    assert "graph" not in made.cuda.live(), "only what is launched is kept"
    assert len(made.trt.contexts) == 3
    assert len({context.scratch for context in made.trt.contexts}) == 1, "shared"


def test_copies_are_as_long_as_the_batch(made, session):
    session(frames(3))
    copies = {call[1:3] for call in made.cuda.calls if call[0] == "cudaMemcpyAsync"}
    assert copies == {
        ("cudaMemcpyHostToDevice", 3 * 48),
        ("cudaMemcpyDeviceToHost", 3 * 12),
        ("cudaMemcpyDeviceToHost", 3 * 8),
    }


def test_shared_memory_is_mapped_and_nothing_is_copied(bench):
    made = bench(integrated=True)
    session = made.open()
    assert right(session(frames(3)), frames(3))
    assert "cudaMemcpyAsync" not in made.cuda.names()
    assert made.cuda.sizes("device") == [5000], "only the scratch memory"


def test_a_library_that_captures_its_own_graphs_does_it_alone(bench):
    made = bench(own_graphs=True)
    session = made.open()
    for seed in range(2):
        assert right(session(frames(2, seed=seed)), frames(2, seed=seed))
    assert "cudaStreamBeginCapture" not in made.cuda.names()
    session.profile(frames(2), runs=1)
    configs = [call[1] for call in made.cuda.calls if call[0] == "create_execution_context"]
    assert [config.cuda_graph_strategy for config in configs] == ["whole", "off"], (
        "layers are timed without graphs"
    )


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
    assert all(context.profiler is None for context in made.trt.contexts)
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


def failures(bench, *, call, integrated):
    """Yield a bench for each time that the session makes `call`: that one fails."""
    use_all(whole := bench(integrated=integrated), sessions := [])
    names = tuple(whole.cuda.asked)  # without those of close()
    sessions[0].close()
    for index, name in enumerate(names):
        if name == call:
            yield bench(fail_at=index, integrated=integrated)


def test_the_calls_that_may_fail_are_all_of_them(bench):
    names = set()
    for integrated in (False, True):
        use_all(made := bench(integrated=integrated), [])
        names |= set(made.cuda.asked)
    assert names == set(CALLS)


@pytest.mark.parametrize("integrated", [False, True], ids=["copied", "mapped"])
@pytest.mark.parametrize("call", CALLS)
def test_a_failed_call_is_named_and_nothing_leaks(bench, caplog, call, integrated):
    """A graph that cannot be captured is no error: the session works without it."""
    for made in failures(bench, call=call, integrated=integrated):
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
        assert len(made.trt.contexts) == 0


@pytest.mark.parametrize("integrated", [False, True], ids=["copied", "mapped"])
def test_a_session_frees_everything_when_it_is_closed(bench, integrated):
    """The fake refuses to free memory that a context uses, and a stream that still works."""
    use_all(made := bench(integrated=integrated), sessions := [])
    assert {"device", "host", "stream"} <= set(made.cuda.live())
    sessions[0].close()
    assert made.cuda.live() == []
    assert len(made.trt.contexts) == 0


def test_a_session_that_nobody_closed_is_freed_with_its_last_reference(made):
    session = made.open()
    session(frames(1))
    del session
    gc.collect()
    assert made.cuda.live() == []


def test_memory_that_is_full_says_so_at_every_allocation(bench):
    made = bench()
    session = made.open()
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
def test_a_call_of_tensorrt_that_returns_false_is_named(bench, call):
    session = (made := bench(refuse=call)).open()
    with pytest.raises(SystemProblem, match=call):
        session(frames(1))
    session.close()
    assert made.cuda.live() == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("infer_shapes", RuntimeError("infer_shapes error code: -1")),
        ("set_input_shape", TypeError("incompatible function arguments")),
        ("set_device_memory", RuntimeError("std::exception")),
        ("create_execution_context", MemoryError("std::bad_alloc")),
        ("get_tensor_profile_shape", ValueError("Unable to convert function return value")),
        ("get_tensor_dtype", TypeError("Unregistered type : nvinfer1::DataType")),
        ("deserialize_cuda_engine", RuntimeError("std::exception")),
    ],
)
def test_a_call_of_the_binding_that_raises_is_a_typed_error(bench, call, error):
    made = bench(raises={call: error})
    with pytest.raises(SystemProblem, match=re.escape(f"{type(error).__name__}: {error}")):
        made.open()(frames(1))
    gc.collect()
    assert made.cuda.live() == []


def test_what_tensorrt_logs_is_quoted(bench, caplog):
    session = bench(refuse="create_execution_context", says="[engine.cpp] no such profile").open()
    with pytest.raises(SystemProblem, match=r"batches of 1: .*_context failed: \[engine\.cpp\]"):
        session(frames(1))
    assert "engine.cpp" not in caplog.text, "once is enough"


@pytest.mark.parametrize(
    ("refuse", "text"),
    [
        ("deserialize_cuda_engine", "tensorrt 10.3.0 will not load x.engine"),
        ("create_execution_context", "cannot prepare batches of 1: TensorRT's create_execution"),
    ],
)
@pytest.mark.parametrize(
    "says",
    [
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "Requested amount of GPU memory (1073741824 bytes) could not be allocated.",
    ],
)
def test_a_gpu_that_is_full_is_named_with_what_to_do(bench, refuse, text, says):
    pattern = f"{re.escape(text)}.*{re.escape(says)}\n.*end what else uses the GPU"
    with pytest.raises(OutOfDeviceMemory, match=pattern):
        bench(refuse=refuse, says=says).open()(frames(1))


def test_an_error_that_is_only_logged_reaches_the_log(bench, caplog):
    session = bench(says="a warning of the context", refuse="nothing").open()
    assert right(session(frames(1)), frames(1))
    assert "a warning of the context" in caplog.text


def test_an_engine_that_cannot_be_captured_runs_without_a_graph(bench, caplog):
    session = (made := bench(refuse="capture")).open()
    for seed in range(2):
        assert right(session(frames(2, seed=seed)), frames(2, seed=seed))
    assert caplog.text.count("no CUDA graph for batches of 2") == 1
    assert made.cuda.capture == {}
    session.close()
    assert made.cuda.live() == []


def test_a_runtime_that_logged_an_error_is_never_used(bench):
    """Real TensorRT 11.4 returns an object there; the next call ends the process."""
    says = "CUDA initialization failure with error: 35"
    made = bench(refuse="Runtime", says=says)
    with pytest.raises(SystemProblem, match=f"cannot create its Runtime: {says}"):
        made.open()
    assert made.trt.engines == [], "deserialize_cuda_engine was called"


def test_none_from_deserialise_quotes_tensorrt(bench):
    with pytest.raises(
        SystemProblem, match=r"tensorrt 10\.3\.0 will not load x\.engine: incompatible device"
    ):
        bench(refuse="deserialize_cuda_engine", says="incompatible device").open()


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"logits": ("bfloat16", (3,))}, "numpy lacks"),
        ({"logits": (np.dtype(np.float32), (-1,))}, "no unknown size"),
    ],
)
def test_an_engine_with_an_output_that_cannot_be_read_is_refused(bench, outputs, text):
    with pytest.raises(BundleError, match=text):
        bench(outputs=outputs).open()


def test_a_closed_session_refuses_and_a_wrong_batch_is_refused(session):
    with pytest.raises(UsageError, match="uint8"):
        session(frames(1)[0])
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session(frames(1))
