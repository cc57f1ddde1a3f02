"""The session's bookkeeping on a pretended GPU: what is asked in which order, what is kept, and that all of it is freed once."""

from __future__ import annotations

import gc
from contextlib import suppress

import numpy as np
import pytest

from finedge.errors import BundleError, SystemProblem, UsageError
from finedge.runtime.backend import HasStream, Session
from tests.runtime.trt.conftest import OUTPUTS, answer, frames

ALLOCATIONS = {"cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags"}
ENQUEUE = ["cudaMemcpyAsync", "execute_async_v3", "cudaMemcpyAsync", "cudaMemcpyAsync"]
COLD = [
    "create_execution_context", "set_input_shape", *["set_tensor_address"] * 3, "infer_shapes",
    *ENQUEUE, "cudaStreamSynchronize",
    "cudaStreamBeginCapture", *ENQUEUE, "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy",
]  # fmt: skip
WARM = ["cudaGraphLaunch", "cudaStreamSynchronize"]


def right(found, batch):
    expected = answer(batch)
    assert set(found) == set(expected)
    return all(
        found[k].dtype == np.float32
        and np.array_equal(found[k], v.astype(OUTPUTS[k][0]).astype(np.float32))
        for k, v in expected.items()
    )


def asked(made, work):
    """Return what `work` asked of CUDA and TensorRT."""
    made.cuda.calls.clear()
    work()
    return made.cuda.names()


@pytest.fixture
def made(bench):
    return bench()


@pytest.fixture
def session(made):
    return made.open()


def test_it_is_a_session_that_streams(session):
    found: Session = session
    assert isinstance(found, HasStream)


def test_everything_is_allocated_when_it_opens(made, session):
    assert made.cuda.names() == [
        "cudaStreamCreateWithFlags",
        "cudaMalloc",
        *["cudaHostAlloc", "cudaMalloc"] * 3,
    ]
    assert [c[1] for c in made.cuda.calls if c[0] == "cudaMalloc"] == [
        5000,
        4 * 48,
        4 * 12,
        4 * 8,
    ], "scratch, then the largest batch of each tensor"


def test_the_first_batch_of_a_size_runs_uncaptured_then_is_captured(made, session):
    assert asked(made, lambda: session(frames(2))) == [*COLD, *WARM]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_warm_call_launches_one_graph_and_allocates_and_sets_nothing(made, session, size):
    session(frames(size))
    assert asked(made, lambda: session(frames(size, seed=1))) == WARM


def test_each_size_has_one_graph_and_one_context(made, session):
    for size in (1, 3, 1, 4, 3, 1):
        assert right(session(frames(size, seed=size)), frames(size, seed=size))
    assert made.cuda.live().count("executable") == 3
    assert len(made.trt.contexts) == 3
    assert made.cuda.names().count("cudaGraphLaunch") == 6
    assert {c.scratch for c in made.trt.contexts} == {next(iter(made.trt.contexts)).scratch}, (
        "they share their scratch memory"
    )


def test_copies_are_as_long_as_the_batch(made, session):
    session(frames(3))
    assert [c[1:3] for c in made.cuda.calls if c[0] == "cudaMemcpyAsync"][:3] == [
        ("cudaMemcpyHostToDevice", 3 * 48), ("cudaMemcpyDeviceToHost", 3 * 12), ("cudaMemcpyDeviceToHost", 3 * 8)]  # fmt: skip


def test_answers_stay_what_they_were(session):
    first = session(frames(2))
    session(frames(2, seed=9))
    assert right(first, frames(2))


def test_a_larger_batch_goes_in_parts(made, session):
    batch = frames(11)
    assert right(session(batch), batch)
    assert made.cuda.names().count("cudaGraphLaunch") == 3


def test_a_batch_that_is_not_contiguous_is_answered_as_its_copy(session):
    batch = frames(2)[:, :, ::-1]
    assert right(session(batch), batch)


@pytest.mark.parametrize("profile", [(3, 3, 4), (4, 4, 4)])
def test_a_batch_below_the_smallest_is_padded(bench, profile):
    session = bench(profile=profile).open()
    assert right(session(frames(1)), frames(1))
    assert right(session(frames(5)), frames(5))


def test_an_engine_of_one_size_takes_every_batch(bench):
    made = bench(fixed=2)
    session = made.open()
    assert right(session(frames(5)), frames(5))
    assert len(made.trt.contexts) == 1


def test_an_older_library_is_given_scratch_memory_by_its_own_names(bench):
    made = bench(old=True)
    session = made.open()
    assert right(session(frames(2)), frames(2))
    assert all(c.scratch for c in made.trt.contexts)


def test_shared_memory_is_mapped_and_nothing_is_copied(bench):
    made = bench(integrated=True)
    session = made.open()
    assert right(session(frames(3)), frames(3))
    assert "cudaMemcpyAsync" not in made.cuda.names()
    assert made.cuda.names().count("cudaMalloc") == 1, "only the scratch memory"
    assert {c[2] for c in made.cuda.calls if c[0] == "cudaHostAlloc"} == {
        made.cuda.cudaHostAllocMapped
    }
    session.close()
    assert made.cuda.live() == []


def test_a_library_that_makes_its_own_graphs_is_left_to_it(bench):
    made = bench(own_graphs=True)
    session = made.open()
    assert right(session(frames(2)), frames(2))
    assert asked(made, lambda: session(frames(2))) == [*ENQUEUE, "cudaStreamSynchronize"]
    assert next(c for c in made.trt.contexts) is not None
    assert "cudaStreamBeginCapture" not in made.cuda.names()


def test_its_own_graphs_are_asked_for_but_not_under_the_profiler(bench):
    made = bench(own_graphs=True)
    session = made.open()
    session(frames(2))
    session.profile(frames(2), runs=1)
    configs = [c[1] for c in made.cuda.calls if c[0] == "create_execution_context"]
    assert [c.cuda_graph_strategy for c in configs] == ["whole", "off"]


# --- two batches under way ----------------------------------------------------------------------------------------------


def test_stream_answers_every_batch_in_order(session):
    batches = [frames(n, seed=n) for n in (2, 4, 11, 1, 9, 3)]
    found = list(session.stream(iter(batches)))
    assert len(found) == len(batches)
    assert all(right(f, b) for f, b in zip(found, batches, strict=True))


def test_the_next_batch_is_set_going_before_the_last_is_waited_for(made, session):
    list(session.stream([frames(4)] * 2))  # both lanes are warm
    made.cuda.calls.clear()
    list(session.stream([frames(4, seed=i) for i in range(4)]))
    steps = [(c[0].removeprefix("cuda"), c[-1]) for c in made.cuda.calls]
    a, b = steps[0][1], steps[1][1]
    launch, wait = "GraphLaunch", "StreamSynchronize"
    assert a != b
    assert steps == [
        (launch, a),
        (launch, b),
        (wait, a),
        (launch, a),
        (wait, b),
        (launch, b),
        (wait, a),
        (wait, b),
    ]


def test_the_second_lane_is_made_once_and_only_for_streams(made, session):
    session(frames(4))
    assert made.cuda.live().count("stream") == 1
    list(session.stream([frames(1)] * 3))
    assert not ALLOCATIONS & set(asked(made, lambda: list(session.stream([frames(1)] * 3))))
    assert made.cuda.live().count("stream") == 2


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


# --- layers -------------------------------------------------------------------------------------------------------------


def test_layers_are_timed_in_a_context_of_their_own(made, session):
    session(frames(2))
    assert session.profile(frames(2), runs=4) == [("conv", 0.25), ("gemm", 0.5)]
    assert all(c.profiler is None for c in made.trt.contexts), (
        "those that are captured stay as they were"
    )
    assert asked(made, lambda: session(frames(2))) == WARM


@pytest.mark.parametrize(("size", "runs"), [(5, 1), (1, 0)])
def test_a_profile_of_too_many_frames_or_no_runs_is_refused(session, size, runs):
    with pytest.raises(UsageError, match="profiled runs"):
        session.profile(frames(size), runs=runs)


# --- what goes wrong ----------------------------------------------------------------------------------------------------


def live_a_life(made, sessions):
    """Open a session, put it into `sessions`, and use everything it has."""
    sessions.append(session := made.open())
    session(frames(2))
    list(session.stream([frames(1)] * 3))
    session.profile(frames(1), runs=1)


@pytest.mark.parametrize("integrated", [False, True])
def test_everything_is_freed_once_whichever_call_fails(bench, integrated):
    live_a_life(whole := bench(integrated=integrated), [])
    for index in range(whole.cuda.asked):
        made, sessions = bench(fail_at=index, integrated=integrated), []
        with suppress(SystemProblem):  # where a graph fails it runs without
            live_a_life(made, sessions)
        for session in sessions:
            session.close()
            session.close()
        assert made.cuda.live() == [], f"call {index}"
        assert made.cuda.capture == {}, f"call {index} left a capture open"
        assert len(made.trt.contexts) == 0


def test_graphs_go_before_contexts_and_these_before_the_memory_they_use(made, session):
    session(frames(2))
    names = asked(made, session.close)
    assert names == [
        "cudaGraphExecDestroy",
        "context destroyed",
        *["cudaFree", "cudaFreeHost"] * 3,
        "cudaFree",
        "cudaStreamDestroy",
    ]


def test_a_session_that_nobody_closed_is_freed_with_its_last_reference(made):
    session = made.open()
    session(frames(1))
    del session
    gc.collect()
    assert made.cuda.live() == []


def test_memory_that_is_full_says_so_at_every_allocation(bench):
    (made := bench()).open()
    for index in range(1, made.cuda.asked):  # the first makes the stream
        made = bench(fail_at=index, fail_with=2)
        with pytest.raises(SystemProblem, match=r"found no room for .* MiB are free"):
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
def test_a_call_that_answers_false_is_named(bench, call):
    session = (made := bench(refuse=call)).open()
    with pytest.raises(SystemProblem, match=call):
        session(frames(1))
    session.close()
    assert made.cuda.live() == []


def test_an_engine_that_cannot_be_captured_runs_without_a_graph_and_says_so(bench, caplog):
    session = (made := bench(refuse="capture")).open()
    assert right(session(frames(2)), frames(2))
    assert "no CUDA graph for batches of 2" in caplog.text
    assert asked(made, lambda: session(frames(2))) == [*ENQUEUE, "cudaStreamSynchronize"]
    assert made.cuda.capture == {}
    session.close()
    assert made.cuda.live() == []


def test_none_from_deserialise_says_what_tensorrt_said(bench):
    with pytest.raises(
        SystemProblem, match=r"tensorrt 10\.3\.0 will not load x\.engine: incompatible device"
    ):
        bench(refuse="deserialize_cuda_engine", says="incompatible device").open()


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"logits": ("bfloat16", (3,))}, "numpy lacks"),
        ({"logits": (np.dtype(np.float32), (-1,))}, "no unknown size"),
    ],
)
def test_an_engine_with_an_output_that_cannot_be_read_is_refused(bench, outputs, said):
    with pytest.raises(BundleError, match=said):
        bench(outputs=outputs).open()


def test_a_closed_session_refuses_and_a_wrong_batch_is_refused(session):
    with pytest.raises(UsageError, match="uint8"):
        session(frames(1)[0])
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session(frames(1))
