from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from finedge.errors import SourceLost, UsageError
from finedge.runtime.sources import Frame, SourceInfo
from finedge.runtime.stream import stream
from finedge.runtime.stream.pipeline import Answer, Pipeline, Silence
from finedge.runtime.stream.region import Region

SOON_S = 10.0  # an end to waiting, never reached when the code is right
FPS = 50.0


@dataclass
class CountedSource:
    """A source of `count` frames, then `error` or the end.

    The pixels of a frame are its index. Before frame i it calls `before(i)`.
    """

    count: int
    live: bool = False
    error: BaseException | None = None
    before: Callable[[int], object] = lambda index: None
    info: SourceInfo = field(default_factory=lambda: SourceInfo("made", "made", fps=FPS))

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            self.before(index)
            yield Frame(
                index, time.monotonic_ns(), np.full((4, 6, 3), index % 256, np.uint8), "made", 0.0
            )
        if self.error is not None:
            raise self.error

    def __enter__(self) -> CountedSource:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass
class Steps:
    """Scores a frame by its index, and keeps the shapes of its batches.

    It calls `at_prepare` and `at_scores` with the number of the call.
    """

    at_prepare: Callable[[int], object] = lambda call: None
    at_scores: Callable[[int], object] = lambda call: None
    shapes: deque[tuple[int, ...]] = field(default_factory=lambda: deque(maxlen=1000))
    calls: list[itertools.count[int]] = field(
        default_factory=lambda: [itertools.count(), itertools.count()]
    )

    def prepare(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        self.at_prepare(next(self.calls[0]))
        self.shapes.append(np.shape(frames))
        return np.stack(frames)

    def scores(self, batch: np.ndarray, *, frames: Sequence[np.ndarray]) -> np.ndarray:
        self.at_scores(next(self.calls[1]))
        return np.stack([np.array([frame.flat[0], 0.0], np.float32) for frame in batch])


def threads() -> list[str]:
    return [
        t.name
        for t in threading.enumerate()
        if t.name.startswith("finedge-") and t.name.split("-")[1] in ("reader", "prepare", "infer")
    ]


def indices(answers: Sequence[Answer | Silence], *, stream: int = 0) -> list[int]:
    return [a.frame.index for a in answers if isinstance(a, Answer) and a.stream == stream]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert not threads()


def test_every_frame_of_files_is_answered_in_order_with_its_own_scores() -> None:
    with Pipeline([CountedSource(300)], Steps()) as pipeline:
        answers = [a for a in pipeline if isinstance(a, Answer)]
    assert indices(answers) == list(range(300))
    assert all(a.scores[0] == a.frame.index % 256 for a in answers)
    assert pipeline.counts[0].used == 300


def test_thousands_of_frames_lose_none_and_double_none() -> None:
    held: set[int] = set()
    with Pipeline([CountedSource(3000), CountedSource(2000)], Steps()) as pipeline:
        last = [-1, -1]
        for answer in pipeline:
            assert isinstance(answer, Answer)
            assert answer.frame.index == last[answer.stream] + 1
            last[answer.stream] += 1
            held.add(sum(c.captured - c.dropped for c in pipeline.counts) - sum(last) - 2)
    assert last == [2999, 1999]
    # Each of the 2 sources has a frame in hand and one in its slot, and three batches of 2 are
    # under way.
    assert max(held) <= 2 * 2 + 3 * 2


def test_the_stages_work_at_the_same_time() -> None:
    """Each stage waits until the next one works on the frame before.

    Only stages that overlap get to the end.
    """
    infers, decides = threading.Event(), threading.Event()
    steps = Steps(
        at_prepare=lambda call: call < 2 or infers.wait(SOON_S),
        at_scores=lambda call: call < 1 or (infers.set(), decides.wait(SOON_S)),
    )
    with Pipeline([CountedSource(3)], steps) as pipeline:
        for _ in pipeline:
            decides.set()
            assert infers.wait(SOON_S)


def test_a_live_frame_is_taken_only_when_the_one_before_is_in_inference() -> None:
    scored: list[int] = []
    ahead: list[int] = []
    steps = Steps(
        at_prepare=lambda call: ahead.append(call - len(scored)),
        at_scores=lambda call: (scored.append(call), time.sleep(0.01)),
    )
    with Pipeline(
        [CountedSource(300, live=True, before=lambda index: time.sleep(0.001))], steps
    ) as pipeline:
        answered = indices(list(pipeline))
    assert max(ahead) <= 1
    assert all(a < b for a, b in pairwise(answered))
    assert answered[-1] == 299
    (counts,) = pipeline.counts
    assert (counts.captured, counts.used, counts.dropped) == (
        300,
        len(answered),
        300 - len(answered),
    )
    assert counts.dropped > 0


def test_live_sources_share_a_batch_and_a_slow_one_delays_no_other() -> None:
    both, end = threading.Barrier(2), threading.Event()

    def meet(index: int) -> None:
        both.wait(SOON_S)

    def rarely(index: int) -> None:
        if index:
            end.wait(SOON_S)

    steps = Steps()
    sources = [
        CountedSource(400, live=True, before=lambda i: (i == 0 and meet(i), time.sleep(0.002))),
        CountedSource(2, live=True, before=lambda i: (i == 0 and meet(i), rarely(i))),
    ]
    with Pipeline(sources, steps) as pipeline:
        answers = []
        for answer in pipeline:
            answers.append(answer)
            if len(answers) == 20:
                end.set()
    assert indices(answers, stream=1) == [0, 1]
    fast = indices(answers, stream=0)
    assert len(fast) > 10
    assert all(a < b for a, b in pairwise(fast))
    assert {shape[0] for shape in steps.shapes} <= {1, 2}


def test_files_that_are_read_together_are_one_batch() -> None:
    release, steps = threading.Event(), Steps(at_prepare=lambda call: call or release.wait(SOON_S))
    with Pipeline([CountedSource(3), CountedSource(3)], steps) as pipeline:
        threading.Timer(0.2, release.set).start()
        answers = list(pipeline)
    assert indices(answers, stream=0) == indices(answers, stream=1) == [0, 1, 2]
    assert 2 in {shape[0] for shape in steps.shapes}


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("error", [SourceLost("unplugged"), MemoryError(), SystemExit(3)])
def test_an_error_of_a_source_comes_after_its_last_frame(error: BaseException, live: bool) -> None:
    got: list[Answer | Silence] = []
    with (
        pytest.raises(type(error)) as raised,
        Pipeline([CountedSource(3, live=live, error=error)], Steps()) as pipeline,
    ):
        got.extend(pipeline)
    assert raised.value is error
    assert indices(got)[-1] == 2


def test_one_source_that_is_lost_ends_the_others() -> None:
    lost, got = SourceLost("unplugged"), list[Answer | Silence]()
    with (
        pytest.raises(SourceLost),
        Pipeline(
            [CountedSource(10_000_000, live=True), CountedSource(2, error=lost)], Steps()
        ) as pipeline,
    ):
        got.extend(pipeline)
    assert indices(got, stream=1) == [0, 1]


@pytest.mark.parametrize("stage", ["at_prepare", "at_scores"])
def test_an_error_of_a_stage_comes_after_what_was_answered(stage: str) -> None:
    def fail(call: int) -> None:
        if call == 5:
            raise ZeroDivisionError(stage)

    got: list[Answer | Silence] = []
    with (
        pytest.raises(ZeroDivisionError, match=stage),
        Pipeline([CountedSource(1_000_000)], Steps(**{stage: fail})) as pipeline,
    ):
        got.extend(pipeline)
    assert indices(got) == [0, 1, 2, 3, 4]


def test_an_error_of_the_consumer_ends_every_thread() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Pipeline(
            [CountedSource(1_000_000), CountedSource(1_000_000, live=True)], Steps()
        ) as pipeline,
    ):
        next(1 // 0 for _ in pipeline)


@pytest.mark.parametrize("live", [True, False])
def test_stop_answers_what_is_under_way_and_ends(live: bool) -> None:
    with Pipeline([CountedSource(10_000_000, live=live)], Steps()) as pipeline:
        answers = iter(pipeline)
        first = [next(answers) for _ in range(5)]
        pipeline.stop()
        rest = list(answers)
    assert len(rest) <= 4
    used = pipeline.counts[0].used
    assert used == len(first) + len(rest)
    assert all(a < b for a, b in pairwise(indices([*first, *rest])))


def test_stop_ends_a_wait_for_a_silent_camera() -> None:
    hang = threading.Event()
    with Pipeline(
        [CountedSource(1, live=True, before=lambda index: hang.wait(SOON_S))],
        Steps(),
        no_signal_ms=60_000,
    ) as pipeline:
        threading.Timer(0.05, pipeline.stop).start()
        assert list(pipeline) == []
        hang.set()


def test_all_readers_are_stopped_before_any_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "READER_JOIN_S", 3 * SOON_S)
    closed, met = [threading.Event(), threading.Event()], []

    class Hanging(CountedSource):
        def close(self) -> None:
            closed[self.count - 1].set()

    sources = [
        Hanging(n, live=True, before=lambda index, n=n: met.append(closed[n % 2].wait(SOON_S)))
        for n in (1, 2)
    ]  # type: ignore[misc]
    with Pipeline(sources, Steps()) as pipeline:
        pipeline.stop()
    assert set(met) == {True}


def test_leaving_without_iterating_leaves_nothing() -> None:
    with Pipeline([CountedSource(1_000_000), CountedSource(1_000_000, live=True)], Steps()):
        pass


def test_a_silence_names_its_source_and_never_reaches_a_stage() -> None:
    hang, steps = threading.Event(), Steps()
    with Pipeline(
        [CountedSource(1, live=True, before=lambda index: hang.wait(SOON_S)), CountedSource(2)],
        steps,
        no_signal_ms=20,
    ) as pipeline:
        answers = []
        for answer in pipeline:
            answers.append(answer)
            if answers.count(Silence(0)) == 2:
                hang.set()
    assert Silence(1) not in answers
    assert (indices(answers, stream=0), indices(answers, stream=1)) == ([0], [0, 1])
    assert sum(shape[0] for shape in steps.shapes) == 3


@pytest.mark.parametrize("live", [True, False])
def test_the_limit_counts_frames_of_all_sources(live: bool) -> None:
    with Pipeline(
        [CountedSource(10_000_000, live=live), CountedSource(10_000_000, live=live)],
        Steps(),
        limit=7,
    ) as pipeline:
        assert len(list(pipeline)) == 7
    assert sum(c.used for c in pipeline.counts) == 7


def test_an_interval_thins_a_video_by_its_own_clock() -> None:
    with Pipeline([CountedSource(200)], Steps(), interval_s=0.5) as pipeline:
        assert indices(list(pipeline)) == [round(0.5 * FPS) * i for i in range(8)]
    (counts,) = pipeline.counts
    assert (counts.captured, counts.used, counts.dropped) == (200, 8, 192)


def test_an_interval_that_is_no_multiple_of_a_frame_keeps_its_mean_rate() -> None:
    with Pipeline([CountedSource(500)], Steps(), interval_s=0.03) as pipeline:
        answers = list(pipeline)
    assert len(answers) == pytest.approx(500 / FPS / 0.03, abs=1)


def test_only_the_region_is_prepared_and_the_whole_frame_is_kept() -> None:
    steps = Steps()
    with Pipeline([CountedSource(1)], steps, region=Region.parse("1,0,3,2")) as pipeline:
        (answer,) = pipeline
    assert isinstance(answer, Answer)
    assert (list(steps.shapes), answer.frame.image.shape) == ([(1, 2, 3, 3)], (4, 6, 3))


def test_a_region_outside_the_frame_ends_the_run_with_its_error() -> None:
    with (
        pytest.raises(UsageError, match="6x4"),
        Pipeline([CountedSource(1)], Steps(), region=Region.parse("4,0,3,2")) as pipeline,
    ):
        list(pipeline)


def test_sources_without_a_frame_end_at_once() -> None:
    with Pipeline([CountedSource(0), CountedSource(0, live=True)], Steps()) as pipeline:
        assert list(pipeline) == []


def test_no_frame_and_no_batch_is_copied_between_the_stages() -> None:
    prepared, scored = list[tuple[np.ndarray, np.ndarray]](), list[np.ndarray]()

    class Recording(Steps):
        def prepare(self, frames: Sequence[np.ndarray]) -> np.ndarray:
            prepared.append((frames[0], super().prepare(frames)))
            return prepared[-1][1]

        def scores(self, batch: np.ndarray, *, frames: Sequence[np.ndarray]) -> np.ndarray:
            scored.append(batch)
            return super().scores(batch, frames=frames)

    region = Region.parse("1,0,3,2")
    with Pipeline([CountedSource(3)], Recording(), region=region) as pipeline:
        answers = [answer for answer in pipeline if isinstance(answer, Answer)]
    for answer, (part, batch), pixels in zip(answers, prepared, scored, strict=True):
        assert np.shares_memory(part, answer.frame.image)
        assert batch is pixels
