from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from types import TracebackType

import numpy as np
import pytest

from finedge.errors import SourceLost
from finedge.runtime.sources import Frame, SourceInfo
from finedge.runtime.stream.shutdown import stop_on_signals
from finedge.runtime.stream.stream import FrameCounts, Stream

SOON_S = 10.0  # an end to waiting, never reached when the code is right


class Scripted:
    """A source of `count` frames, then `error` or the end.

    `produced` counts the frames that the stream has taken.
    """

    def __init__(
        self,
        count: int,
        *,
        live: bool = True,
        error: BaseException | None = None,
        pace_s: float = 0.0,
    ) -> None:
        self.live, self.info = live, SourceInfo("scripted", "scripted")
        self.count, self.error, self.pace_s = count, error, pace_s
        self.produced = 0
        self.silence = threading.Event()
        self.silence.set()

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            self.silence.wait(SOON_S)
            time.sleep(self.pace_s)
            yield Frame(index, time.monotonic_ns(), np.zeros((2, 2, 3), np.uint8), "scripted", 0.0)
            self.produced += 1
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Scripted:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def reader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "finedge-reader"]


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.001)


def test_a_slow_consumer_gets_the_newest_frame_and_drops_are_counted() -> None:
    source = Scripted(300, pace_s=0.001)
    indices, lags = [], []
    with Stream(source) as stream:
        frames = iter(stream)
        while True:
            newest = source.produced - 1  # what is in the slot already, at least
            frame = next(frames, None)
            if frame is None:
                break
            indices.append(frame.index)
            lags.append(newest - frame.index)
            time.sleep(0.02)
    assert max(lags) <= 0
    assert all(a < b for a, b in pairwise(indices))
    assert indices[-1] == 299
    assert stream.counts == FrameCounts(300, len(indices), 300 - len(indices))
    assert stream.counts.dropped > 0


def test_every_frame_of_a_file_is_used_however_slow_the_consumer() -> None:
    with Stream(Scripted(20, live=False)) as stream:
        indices = []
        for frame in stream:
            time.sleep(0.001)
            indices.append(frame.index)
    assert indices == list(range(20))
    assert stream.counts == FrameCounts(20, 20, 0)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("error", [SourceLost("unplugged"), MemoryError(), SystemExit(3)])
def test_an_error_of_the_reader_is_raised_after_the_last_frame(
    error: BaseException, live: bool
) -> None:
    got = []
    with (
        pytest.raises(type(error)) as raised,
        Stream(Scripted(3, live=live, error=error)) as stream,
    ):
        got.extend(stream)
    assert raised.value is error
    assert got[-1].index == 2
    assert stream.counts.captured == stream.counts.used + stream.counts.dropped == 3
    assert not reader_threads()


def test_a_live_source_that_ends_ends_the_stream() -> None:
    with Stream(Scripted(3)) as stream:
        assert list(stream)[-1].index == 2
    with Stream(Scripted(0)) as empty:
        assert list(empty) == []
    assert empty.counts == FrameCounts(0, 0, 0)


def test_silence_is_reported_and_no_frame_is_made_up() -> None:
    source = Scripted(1)
    source.silence.clear()
    with Stream(source, no_signal_ms=20) as stream:
        frames = iter(stream)
        assert next(frames) is None
        assert next(frames) is None
        assert stream.counts == FrameCounts(0, 0, 0)
        source.silence.set()
        assert next(f for f in frames if f is not None).index == 0


def test_a_pause_shorter_than_the_limit_is_no_silence() -> None:
    with Stream(Scripted(3, pace_s=0.15), no_signal_ms=60_000) as stream:
        assert [f.index for f in stream] == [0, 1, 2]


def test_leaving_early_stops_the_reader_and_counts_the_frame_in_the_slot() -> None:
    source = Scripted(1_000_000)
    with Stream(source) as stream:
        next(iter(stream))
        wait_until(lambda: source.produced > 10)
    assert not reader_threads()
    assert stream.counts.used == 1
    assert stream.counts.captured == stream.counts.used + stream.counts.dropped


@pytest.mark.parametrize("live", [True, False])
def test_stop_ends_the_iteration_after_the_frame_in_hand(live: bool) -> None:
    with Stream(Scripted(1_000_000, live=live)) as stream:
        frames = iter(stream)
        next(frames)
        stream.stop()
        assert list(frames) == []
    assert stream.counts.used == 1


def test_stop_from_another_thread_ends_a_wait_for_a_silent_camera() -> None:
    source = Scripted(1)
    source.silence.clear()
    with Stream(source, no_signal_ms=60_000) as stream:
        threading.Timer(0.05, stream.stop).start()
        assert list(stream) == []
        source.silence.set()


def test_an_error_of_the_consumer_passes_and_the_reader_ends() -> None:
    with pytest.raises(ZeroDivisionError), Stream(Scripted(1_000_000)) as stream:
        next(1 // 0 for _ in stream)
    assert not reader_threads()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_one_is_as_before(number: signal.Signals) -> None:
    calls: list[int] = []
    before = signal.signal(number, lambda *_: calls.append(2))
    try:
        with stop_on_signals(lambda: calls.append(1)) as received:
            assert not received.is_set()
            os.kill(os.getpid(), number)
            wait_until(received.is_set)
            os.kill(os.getpid(), number)
            wait_until(lambda: len(calls) == 2)
        assert calls == [1, 2]
    finally:
        signal.signal(number, before)


def test_a_signal_during_the_first_ones_handler_is_the_second_one() -> None:
    calls: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append("second"))

    def stop() -> None:
        calls.append("stop")
        if len(calls) < 5:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with stop_on_signals(stop):
            os.kill(os.getpid(), signal.SIGINT)
            wait_until(lambda: len(calls) == 2)
        assert calls == ["stop", "second"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_restored_after_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(lambda: None) as received:
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert not received.is_set()
