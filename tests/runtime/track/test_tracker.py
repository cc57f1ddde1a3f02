"""The tracker on boxes of known things: no pixels, no finder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from finedge.runtime.find.box import Box
from finedge.runtime.track.assign import assign
from finedge.runtime.track.colours import BINS, colours_of
from finedge.runtime.track.kinematics import Kinematics
from finedge.runtime.track.looks import Looks
from finedge.runtime.track.track import Sighting, TrackRule
from finedge.runtime.track.tracker import Tracker

RATES = pytest.mark.parametrize("fps", [5.0, 15.0, 30.0])
Path = Callable[[float], Box | None]  # where a thing is at a time; None: hidden


def looks(kind: int) -> Looks:
    """Return the looks of a thing: a colour and a class of its own."""
    colours = np.full((3, BINS), 1e-3)
    colours[:, 2 + 3 * kind] = 1.0
    p = np.full(5, 0.02)
    p[kind] = 0.92
    return Looks((colours / colours.sum(axis=1, keepdims=True)).astype(np.float32), p)


def at(x: float, y: float = 100.0, size: int = 60) -> Box:
    return Box(round(x - size / 2), round(y - size / 2), size, size)


def follow(
    paths: Sequence[Path], *, seconds: float, fps: float, tracker: Tracker | None = None
) -> list[list[int]]:
    """Return the numbers of the tracks of each thing, without repetition, in order of time."""
    tracker = tracker or Tracker()
    numbers: list[list[int]] = [[] for _ in paths]
    for index in range(round(seconds * fps)):
        time = index / fps
        boxes = [(kind, path(time)) for kind, path in enumerate(paths)]
        seen = [(kind, box) for kind, box in boxes if box is not None]
        sightings = [Sighting(box, looks(kind)) for kind, box in seen]
        for match in tracker(sightings, seconds=time):
            own = numbers[seen[match.box][0]]
            if match.track.confirmed and own[-1:] != [match.track.number]:
                own.append(match.track.number)
    return numbers


@RATES
def test_two_things_that_cross_keep_their_tracks(fps: float) -> None:
    assert follow(
        [lambda t: at(100 + 150 * t), lambda t: at(700 - 150 * t)], seconds=4, fps=fps
    ) == [
        [1],
        [2],
    ]


@RATES
def test_two_things_that_swap_places_are_known_by_their_looks(fps: float) -> None:
    def path(start: float, end: float) -> Path:
        # Both sit, are gone for 0.6 s, and are then where the other one was.
        return lambda t: at(start) if t < 2 else at(end) if t >= 2.6 else None

    assert follow([path(200, 330), path(330, 200)], seconds=5, fps=fps) == [[1], [2]]


@RATES
def test_a_thing_that_a_post_hides_goes_on(fps: float) -> None:
    def path(t: float) -> Box | None:
        x = 100 + 150 * t
        return None if 340 < x < 420 else at(x)

    assert follow([path], seconds=4, fps=fps) == [[1]]


@RATES
@pytest.mark.parametrize(("away_s", "tracks"), [(2.0, 1), (4.0, 2)])
def test_a_thing_that_returns_is_the_same_until_the_gap(
    fps: float, away_s: float, tracks: int
) -> None:
    path: Path = lambda t: at(100) if t < 2 else at(900) if t >= 2 + away_s else None  # noqa: E731
    (numbers,) = follow([path], seconds=8, fps=fps)
    assert len(numbers) == tracks


def test_another_thing_within_the_gap_is_another_track() -> None:
    first: Path = lambda t: at(100) if t < 2 else None  # noqa: E731
    second: Path = lambda t: at(100) if t >= 3 else None  # noqa: E731
    assert follow([first, second], seconds=6, fps=15) == [[1], [2]]


def test_noise_is_no_track_and_ends_nothing() -> None:
    tracker = Tracker()
    path: Path = lambda t: at(100 + 300 * (t % 1)) if t % 1 < 0.1 else None  # noqa: E731
    assert follow([path], seconds=5, fps=15, tracker=tracker) == [[]]
    assert tracker.ended == []
    assert tracker.close() == []


def test_tracks_share_a_box_while_they_touch_and_part_with_their_looks() -> None:
    tracker, fps = Tracker(), 15.0
    alone, numbers = [], []
    for index in range(90):
        t = index / fps
        one, other = at(200 + 60 * t), at(560 - 60 * t)
        touch = abs(one.x - other.x) < 62
        if touch:
            left = min(one.x, other.x)
            boxes = [Sighting(Box(left, one.y, 60 + abs(one.x - other.x), 60), looks(3))]
        else:
            boxes = [Sighting(one, looks(0)), Sighting(other, looks(1))]
        matches = tracker(boxes, seconds=t)
        alone.append(all(match.alone for match in matches))
        numbers.append(sorted(match.track.number for match in matches))
    assert numbers[10:] == [[1, 2]] * 80  # both are there all the time
    assert not all(alone)
    assert alone[-1]


@RATES
def test_a_thing_that_comes_while_another_leaves_is_not_taken_for_it(fps: float) -> None:
    """They meet at the edge, share a box there, and the new one goes on alone."""
    tracker, tracks = Tracker(), {}
    for index in range(round(5 * fps)):
        t = index / fps
        leaves, comes = 400 + 150 * t, 1200 - 150 * t
        if t < 2.4:
            boxes = [(0, at(leaves))]
        elif t < 2.9:
            left, right = sorted((round(leaves), round(comes)))
            boxes = [(3, Box(left - 30, 70, right - left + 60, 60))]
        else:
            boxes = [(1, at(comes))]
        matches = tracker([Sighting(box, looks(kind)) for kind, box in boxes], seconds=t)
        for match in matches:
            if match.alone and match.track.confirmed:
                tracks.setdefault(boxes[match.box][0], set()).add(match.track.number)
    assert len(tracks[0]) == len(tracks[1]) == 1
    assert tracks[0] != tracks[1]


@RATES
def test_a_thing_that_is_elsewhere_at_once_is_known_from_one_box(fps: float) -> None:
    tracker = Tracker()
    for index in range(round(2 * fps)):
        tracker([Sighting(at(100), looks(0))], seconds=index / fps)
    (match,) = tracker([Sighting(at(900), looks(0))], seconds=2.0)
    assert (match.track.number, match.alone) == (1, True)


def test_a_thing_that_turns_round_keeps_its_track() -> None:
    def turned(t: float) -> Looks:
        share = min(1.0, max(0.0, t / 2 - 1))
        one, other = looks(0), looks(1)
        colours = one.colours + (other.colours - one.colours) * share
        return Looks(colours.astype(np.float32), one.p + (other.p - one.p) * share)

    tracker, seen = Tracker(), set()
    for index in range(75):
        t = index / 15
        seen |= {m.track.number for m in tracker([Sighting(at(100), turned(t))], seconds=t)}
    assert seen == {1}


def test_a_thing_that_is_back_before_the_gap_ends_is_waited_for() -> None:
    """Its first boxes are cut by the edge of the frame. So its looks are known after the gap."""
    tracker = Tracker()
    for index in range(30):
        tracker([Sighting(at(100), looks(0))], seconds=index / 15)
    for index in range(14):
        t = 1.95 + 2.9 + index / 15
        is_cut = index < 5
        kind = 2 if is_cut else 0
        (match,) = tracker([Sighting(at(100), looks(kind), cut=is_cut)], seconds=t)
        assert tracker.ended == []
    assert match.track.number == 1


def test_what_comes_over_the_edge_is_not_taken_for_what_leaves_there() -> None:
    """Both are cut by the edge of the frame, in the same place, one after the other."""
    tracker, numbers = Tracker(), set()
    for index in range(30):
        tracker([Sighting(at(100), looks(0))], seconds=index / 15)
    for index in range(30, 60):
        sighting = Sighting(at(100), looks(1), cut=index < 34)
        (match,) = tracker([sighting], seconds=index / 15)
        if match.alone and match.track.confirmed:
            numbers.add(match.track.number)
    assert len(numbers) == 1
    assert 1 not in numbers


def test_a_box_of_two_counts_for_neither() -> None:
    tracker = Tracker()
    for index in range(30):
        boxes = [Sighting(at(200), looks(0)), Sighting(at(330), looks(1))]
        matches = tracker(boxes, seconds=index / 15)
    assert [match.alone for match in matches] == [True, True]
    before = [match.track.memory.looks.p for match in matches]
    matches = tracker([Sighting(Box(170, 70, 190, 60), looks(3))], seconds=2.0)
    assert [(match.track.number, match.alone) for match in matches] == [(1, False), (2, False)]
    assert [match.track.memory.looks.p for match in matches] == before


def test_an_ended_track_is_reported_once() -> None:
    tracker = Tracker(TrackRule(gap_s=1.0))
    for index in range(10):
        tracker([Sighting(at(100), looks(0))], seconds=index / 10)
    ends = []
    for index in range(10, 30):
        tracker([], seconds=index / 10)
        ends += tracker.ended
    (track,) = ends
    assert (track.number, track.began, track.seen_at) == (1, 0.0, 0.9)


@pytest.mark.parametrize("seed", range(30))
def test_an_assignment_has_the_least_cost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 5, 2)
    costs = rng.uniform(0, 10, (rows, columns))
    costs[rng.uniform(size=costs.shape) < 0.2] = np.inf
    pairs = assign(costs, limit=6.0)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    total = sum(costs[pair] for pair in pairs) + 6.0 * (rows - len(pairs))
    assert total == pytest.approx(_least(costs, limit=6.0))


def _least(costs: NDArray[np.float64], *, limit: float) -> float:
    rows, columns = costs.shape
    best = np.inf
    for choice in itertools.product([*range(columns), None], repeat=rows):
        chosen = [c for c in choice if c is not None]
        if len(set(chosen)) == len(chosen):
            pairs = [limit if c is None else costs[r, c] for r, c in enumerate(choice)]
            best = min(best, sum(pair if pair <= limit else np.inf for pair in pairs))
    return best


def test_nothing_to_assign() -> None:
    assert assign(np.zeros((0, 3)), limit=1.0) == assign(np.zeros((3, 0)), limit=1.0) == []


def test_colours_are_those_of_the_middle_of_a_box() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:60, 20:60] = (200, 40, 40)
    red = colours_of(image, Box(20, 20, 40, 40))
    assert red.shape == (3, BINS)
    assert red.sum(axis=1) == pytest.approx([1, 1, 1])
    assert np.abs(red - colours_of(image, Box(15, 15, 50, 50))).max() < 0.35
    assert np.abs(red - colours_of(image, Box(60, 60, 40, 40))).max() > 0.4
    assert colours_of(image, Box(5, 5, 1, 1)).shape == (3, BINS)


def test_a_prediction_goes_on_and_slows_down() -> None:
    state = Kinematics.of(at(100), seconds=0.0)
    for index in range(1, 10):
        state.predict(index / 10)
        state.update(at(100 + 10 * index), frame_s=0.1)
    state.predict(1.0)
    assert state.x == pytest.approx(200, abs=3)
    for index in range(11, 60):
        state.predict(index / 10)
    assert state.x < 250
