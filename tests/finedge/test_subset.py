from collections import Counter
from pathlib import Path

import pytest

from finedge.data import Item
from finedge.errors import UsageError
from finedge.subset import balanced_order, first_balanced

ITEMS = tuple(
    Item(Path(f"{label}/{n}.jpg"), label)
    for label, count in enumerate((9, 4, 6))
    for n in range(count)
)


@pytest.mark.parametrize("images", [1, 3, 5, 12])
def test_every_prefix_is_even_over_the_classes(images):
    counts = Counter(item.label for item in first_balanced(ITEMS, images))
    assert sum(counts.values()) == images
    assert max(counts.values()) - min(counts[label] for label in range(3)) <= 1


def test_a_smaller_subset_is_part_of_a_larger_one_and_nothing_is_lost():
    everything = first_balanced(ITEMS, 0)
    assert sorted(everything, key=str) == sorted(ITEMS, key=str)
    assert first_balanced(ITEMS, 7) == everything[:7]
    assert first_balanced(ITEMS, 99) == everything
    assert first_balanced(ITEMS[::-1], 7) == everything[:7]
    assert balanced_order(ITEMS, seed=1) != list(everything)


def test_a_negative_number_is_refused():
    with pytest.raises(UsageError, match="--images -1"):
        first_balanced(ITEMS, -1)
