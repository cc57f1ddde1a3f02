from __future__ import annotations

import numpy as np
import pytest

from finedge.synthetic.flock import TRUNK, Flock
from finedge.synthetic.itinerary import Itinerary


def small(birds: int, seed: int) -> Flock:
    return Flock(birds, seed=seed, fps=10.0, width=320, height=180)


@pytest.mark.parametrize("index", [0, 45, 5000])
def test_a_frame_depends_on_its_index_and_seed_alone(index: int) -> None:
    frame = small(2, seed=3).frame(index)
    other = small(2, seed=3)
    other.frame(7)
    assert frame.shape == (180, 320, 3)
    assert np.array_equal(frame, other.frame(index))
    assert (frame != small(2, seed=4).frame(index)).mean() > 0.5


def test_the_truth_is_where_the_picture_differs_from_an_empty_one() -> None:
    flock, empty = small(3, seed=1), small(0, seed=1)
    index = next(i for i in range(300) if len(flock.truth(i)) == 3)
    changed = np.abs(flock.frame(index).astype(int) - empty.frame(index)).max(axis=2) > 25
    for bird in flock.truth(index):
        x, y, w, h = bird.box
        assert 0 < w < 160
        if bird.seen == 1:
            assert changed[y : y + h, x : x + w].mean() > 0.1
        changed[max(0, y - 6) : y + h + 6, max(0, x - 6) : x + w + 6] = False
    assert changed.mean() < 0.002


def test_birds_come_go_and_return() -> None:
    itinerary = Itinerary(3, seed=1)
    stays = {stay.number: stay for t in range(100) for stay, _ in itinerary.at(t)}
    individuals = [stay.individual for stay in stays.values()]
    assert len(stays) > 15
    assert len(set(individuals)) < len(individuals)


def test_the_trunk_hides_a_part_of_a_bird() -> None:
    flock = small(3, seed=1)
    left, right = (share * flock.width for share in TRUNK)
    parts = [b for t in range(20, 200, 2) for b in flock.truth(t) if b.seen < 0.7]
    assert any(left - 50 < b.box[0] < right for b in parts)


def test_there_are_never_more_birds_than_asked_for() -> None:
    itinerary = Itinerary(2, seed=0)
    counts = [len(itinerary.at(seconds)) for seconds in range(200)]
    assert max(counts) == 2
    assert min(counts) == 0
