from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest

from finedge.runtime.events import outbox
from finedge.runtime.events.notice import Counts, Notice
from finedge.runtime.events.outbox import Outbox, Pauses, Undelivered
from tests.runtime.events.make import make_notice, wait_until

SHORT = Pauses(first=0.01, longest=0.02)


class Receiver:
    """Takes notices; `problem` refuses them, and `gate` holds them."""

    def __init__(self) -> None:
        self.tracks: list[int] = []
        self.problem: Exception | None = None
        self.tries = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, notice: Notice) -> None:
        self.gate.wait(20)
        self.tries += 1
        if self.problem is not None:
            raise self.problem
        self.tracks.append(notice.event.track)


def test_a_receiver_that_is_away_gets_all_in_order_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    receiver = Receiver()
    receiver.problem = Undelivered("it is away")
    box = Outbox("mail", receiver, pauses=SHORT)
    for number in range(5):
        box.write(make_notice(number))
    wait_until(lambda: receiver.tries > 3)
    assert box.counts == Counts(0, 0, 5)
    assert (box.counts.problem, box.counts.problem_s > 0) == ("it is away", True)
    receiver.problem = None
    wait_until(lambda: box.counts == Counts(5, 0, 0))
    assert box.counts.problem == ""
    box.close()
    assert receiver.tracks == [0, 1, 2, 3, 4]
    assert [r.getMessage() for r in caplog.records] == ["--mail: it is away", "--mail works again"]


def test_a_full_queue_drops_its_oldest_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.gate.clear()
    box = Outbox("mail", receiver, size=3)
    box.write(make_notice(0))
    wait_until(lambda: box.newest)  # it is being delivered, and is no longer in the queue
    for number in range(1, 7):
        box.write(make_notice(number))
    assert box.counts == Counts(0, 3, 4)
    receiver.gate.set()
    box.close()
    assert receiver.tracks == [0, 4, 5, 6]
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if "oldest are dropped" in text]) == 1
    assert "3 events were lost, 4 arrived" in texts[-1]


def test_the_crops_in_a_queue_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, size = Receiver(), len(make_notice(1).jpeg)
    monkeypatch.setattr(outbox, "MAX_BYTES", 3 * size)
    receiver.gate.clear()
    box = Outbox("mail", receiver)
    box.write(make_notice(1))
    wait_until(lambda: box.newest)
    for _ in range(5):
        box.write(make_notice(1))
    assert box.counts == Counts(0, 2, 4)
    receiver.gate.set()
    box.close()
    assert box.counts == Counts(4, 2, 0)


@pytest.mark.parametrize("problem", [Undelivered("no", again=False), ValueError("a bug")])
def test_what_is_refused_for_good_is_lost_and_the_next_is_delivered(problem: Exception) -> None:
    receiver = Receiver()
    receiver.problem = problem
    box = Outbox("mail", receiver)
    box.write(make_notice(0))
    wait_until(lambda: box.counts.lost == 1)
    receiver.problem = None
    box.write(make_notice(1))
    box.close()
    assert (receiver.tracks, box.counts) == ([1], Counts(1, 1, 0))


def test_the_end_waits_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CLOSE_S", 0.3)
    receiver, released = Receiver(), threading.Event()
    receiver.problem = Undelivered("it is away", after_s=3600.0)
    box = Outbox("mail", receiver, release=released.set)
    for number in range(3):
        box.write(make_notice(number))
    box.close()
    assert receiver.tries >= 1
    assert box.counts.delivered == 0
    assert released.wait(10)


def test_the_end_delivers_what_waits() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    box = Outbox("mail", receiver)
    for number in range(4):
        box.write(make_notice(number))
    box.finish()
    receiver.gate.set()
    box.close()
    assert receiver.tracks == [0, 1, 2, 3]


def test_writing_never_waits_for_a_receiver_that_hangs() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    box = Outbox("mail", receiver, size=10)
    done = threading.Thread(target=lambda: [box.write(make_notice(i)) for i in range(100)])
    done.start()
    done.join(20)
    assert not done.is_alive()
    receiver.gate.set()
    box.close()


def test_a_receiver_that_wants_it_at_once_is_not_flooded() -> None:
    times: list[float] = []

    def deliver(_: Notice) -> None:
        times.append(time.monotonic())
        if len(times) < 3:
            raise Undelivered("busy", after_s=0.0)

    box = Outbox("webhook", deliver, pauses=Pauses(first=0.2, longest=0.2))
    box.write(make_notice(1))
    wait_until(lambda: box.counts.delivered == 1)
    box.close()
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(times))


def test_pauses_double_up_to_the_longest() -> None:
    assert [Pauses(1.0, 5.0).after(tries) for tries in (1, 2, 3, 4, 99)] == [1, 2, 4, 5, 5]
