"""The real session on engines of the mock: right answers, what is kept, two lanes, layers."""

from __future__ import annotations

import pytest

from finedge.errors import UsageError
from finedge.runtime.backend import HasStream, Session
from finedge.runtime.trt import input_memory
from tests.runtime.trt.bindings.inside.mock_engine import SCRATCH, bench
from tests.runtime.trt.conftest import frames, right

BOTH = pytest.mark.parametrize("integrated", [False, True], ids=["copied", "mapped"])


def test_it_is_a_session_that_streams(session):
    typed: Session = session
    assert isinstance(typed, HasStream)


def test_an_engine_is_read_by_name():
    engine = bench().load()
    assert str(engine.inputs[0]) == "frames: uint8 [B, 4, 4, 3]"
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


def test_memory_is_allocated_once_for_the_largest_batch(rig, session):
    tensors = [4 * 48, 4 * 12, 4 * 8]
    assert rig.cuda.sizes("device") == sorted([SCRATCH, *tensors])
    assert rig.cuda.sizes("host") == sorted(tensors)
    before = rig.cuda.sizes("device"), rig.cuda.sizes("host")
    for size in (1, 2, 4, 11):
        session(frames(size))
    assert (rig.cuda.sizes("device"), rig.cuda.sizes("host")) == before


def test_a_size_that_ran_before_makes_nothing_new_and_is_one_launch(rig, session):
    session(frames(2))
    live, contexts = rig.cuda.live(), len(rig.contexts)
    rig.cuda.calls.clear()
    assert right(session(frames(2, seed=1)), frames(2, seed=1))
    assert (rig.cuda.live(), len(rig.contexts)) == (live, contexts)
    names = rig.cuda.names()
    assert names.count("cudaGraphLaunch") == 1
    assert "execute_async_v3" not in names, "the graph has the kernels and the copies"


def test_each_size_has_one_graph_and_one_context(rig, session):
    for size in (1, 3, 1, 4, 3, 1):
        session(frames(size))
    assert rig.cuda.live().count("executable") == 3
    assert "graph" not in rig.cuda.live(), "only what is launched is kept"
    assert len(rig.contexts) == 3
    assert len({context.scratch for context in rig.contexts}) == 1, "shared"


def test_copies_are_as_long_as_the_batch(rig, session):
    session(frames(3))
    copies = {call[1:3] for call in rig.cuda.calls if call[0] == "cudaMemcpyAsync"}
    assert copies == {
        ("cudaMemcpyHostToDevice", 3 * 48),
        ("cudaMemcpyDeviceToHost", 3 * 12),
        ("cudaMemcpyDeviceToHost", 3 * 8),
    }


def test_shared_memory_is_mapped_and_nothing_is_copied():
    rig = bench(integrated=True)
    session = rig.open()
    assert right(session(frames(3)), frames(3))
    assert "cudaMemcpyAsync" not in rig.cuda.names()
    assert rig.cuda.sizes("device") == [SCRATCH], "only the scratch memory"


@pytest.mark.parametrize(("slow", "fast"), [("mapped", "copied"), ("copied", "mapped")])
def test_an_integrated_gpu_keeps_the_faster_memory_of_its_input(monkeypatch, slow, fast):
    session = (rig := bench(integrated=True)).open()
    monkeypatch.setattr(input_memory, "perf_counter", lambda: rig.cuda.now)
    rig.cuda.costs = {slow: 2.0, fast: 1.0}
    times = session.choose_input_memory(frames(3))
    assert times[fast] < times[slow]
    assert session.input_memory == fast
    batches = [frames(n, seed=n) for n in (2, 4, 1)]
    assert all(right(a, b) for a, b in zip(session.stream(batches), batches, strict=True))
    session.close()
    assert rig.cuda.live() == []


# --- two batches at once ---


def test_stream_answers_every_batch_in_order(session):
    batches = [frames(n, seed=n) for n in (2, 4, 11, 1, 9, 3)]
    answers = list(session.stream(iter(batches)))
    assert len(answers) == len(batches)
    assert all(right(a, b) for a, b in zip(answers, batches, strict=True))


def test_a_stream_keeps_two_batches_on_the_gpu_and_a_call_one(rig, session):
    session(frames(11))
    assert rig.cuda.most_busy == 1
    list(session.stream([frames(4)] * 4))
    assert rig.cuda.most_busy == 2


def test_the_second_lane_is_made_once_and_only_for_streams(rig, session):
    session(frames(4))
    assert rig.cuda.live().count("stream") == 1
    list(session.stream([frames(1)] * 3))
    live = rig.cuda.live()
    list(session.stream([frames(1)] * 3))
    assert rig.cuda.live() == live
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


def test_a_stream_whose_source_fails_settles(rig, session):
    def source():
        yield frames(2)
        raise OSError("no camera")

    with pytest.raises(OSError, match="no camera"):
        list(session.stream(source()))
    assert right(session(frames(2)), frames(2))
    session.close()
    assert rig.cuda.live() == []


def test_a_stream_over_a_closed_session_ends_with_an_error(rig, session):
    stream = session.stream([frames(2)] * 5)
    next(stream)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        next(stream)
    assert rig.cuda.live() == []


# --- layers ---


def test_layers_are_timed_in_a_separate_context(rig, session):
    session(frames(2))
    live = rig.cuda.live()
    assert session.profile(frames(2), runs=4) == [("conv", 0.25), ("gemm", 0.5)]
    assert not any(context.has_profiler for context in rig.contexts)
    assert rig.cuda.live() == live
    assert right(session(frames(2)), frames(2))


@pytest.mark.parametrize(("size", "runs"), [(5, 1), (1, 0)])
def test_a_profile_of_too_many_frames_or_no_runs_is_refused(session, size, runs):
    with pytest.raises(UsageError, match="profiled runs"):
        session.profile(frames(size), runs=runs)
