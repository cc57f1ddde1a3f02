"""Counts, pairs and the order of confused classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finedge.confusion.counts import Confusion
from finedge.confusion.order import similar_order, worst_block
from finedge.data import Item


def confusion(*answers: tuple[int, int], labels: str = "abcdef") -> Confusion:
    """Return the confusion of (truth, answer) pairs; the images are 0.jpg, 1.jpg, ..."""
    items = tuple(Item(Path(f"data/{i}.jpg"), truth) for i, (truth, _) in enumerate(answers))
    return Confusion(tuple(labels), items, np.array([a for _, a in answers], np.int64))


def test_a_row_counts_the_answers_to_its_class() -> None:
    counts = confusion((0, 0), (0, 1), (0, 1), (2, 0)).counts
    assert counts.shape == (6, 6)
    assert counts.sum() == 4
    assert (counts[0, 0], counts[0, 1], counts[2, 0]) == (1, 2, 1)


def test_the_worst_pair_comes_first_with_its_pictures() -> None:
    first, second = confusion((1, 1), (0, 1), (2, 3), (0, 1), (0, 0)).worst_pairs()
    assert first.record(Path("data")) == {
        "class": "a",
        "taken_for": "b",
        "images": 2,
        "of": 3,
        "example": "1.jpg",
    }
    assert first.typical == Item(Path("data/0.jpg"), 1)
    assert (second.truth, second.answer, second.typical) == ("c", "d", None)


def test_of_equal_pairs_the_larger_share_comes_first() -> None:
    pairs = confusion((0, 1), (0, 0), (2, 3)).worst_pairs()
    assert [pair.truth for pair in pairs] == ["c", "a"]


def test_no_image_and_no_error_have_no_pairs() -> None:
    assert confusion().worst_pairs() == ()
    assert confusion((0, 0), (5, 5)).worst_pairs() == ()


def test_confused_classes_stand_beside_each_other() -> None:
    one = confusion((0, 5), (5, 0), (5, 5), (2, 4), (1, 1), (3, 3))
    order = similar_order(one.counts)
    assert sorted(order) == list(range(6))
    assert abs(order.index(0) - order.index(5)) == abs(order.index(2) - order.index(4)) == 1


def test_the_block_has_the_worst_pair_and_its_neighbours() -> None:
    one = confusion((0, 5), (0, 5), (5, 3), (1, 2))
    assert set(worst_block(one.errors, size=3)) == {0, 5, 3}
    assert set(worst_block(one.errors, size=6)) == {0, 5, 3, 1, 2}
    assert worst_block(confusion((0, 0)).errors, size=3) == []
    assert one.errors.sum() == 4
