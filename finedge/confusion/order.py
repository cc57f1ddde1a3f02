"""An order of the classes in which those that are confused stand beside each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def similar_order(counts: NDArray[np.int64]) -> list[int]:
    """Return all C classes, confused ones beside each other, the longest chain first.

    Chains grow along the largest rates of confusion (single linkage). A chain is turned so that the
    two confused classes come close. Classes that are never confused come last, in their own order.

    Args:
        counts: images by class (row) and answer (column), int [C, C].
    """
    chains = {index: [index] for index in range(len(counts))}
    for first, second in _edges(counts):
        left, right = chains[first], chains[second]
        if left is right:
            continue
        joined = _joined(left, right, first, second)
        chains.update(dict.fromkeys(joined, joined))
    unique = {id(chain): chain for chain in chains.values()}.values()
    return [i for chain in sorted(unique, key=lambda c: (-len(c), min(c))) for i in chain]


def worst_block(errors: NDArray[np.int64], *, size: int) -> list[int]:
    """Return up to `size` classes with many confusions among them, in a similar order.

    It starts with the worst pair. Then comes the class that has most confusions with the block, or
    the next worst pair where there is no such class.

    Args:
        errors: images by class and wrong answer, int [C, C], with a diagonal of zeros.
        size: the most classes.
    """
    both = errors + errors.T
    block: list[int] = []
    while len(block) < min(size, len(both)):
        ties = both[:, block].sum(axis=1)
        ties[block] = 0
        if ties.any():
            block.append(int(ties.argmax()))
            continue
        both[block], both[:, block] = 0, 0
        if not both.any() or len(block) + 2 > size:
            break
        block += [int(i) for i in np.unravel_index(int(both.argmax()), both.shape)]
    order = similar_order(errors[np.ix_(block, block)])
    return [block[i] for i in order]


def _edges(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the pairs of confused classes, the largest rate first; equal ones by their labels."""
    rates = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    rates = np.triu(rates + rates.T, k=1)
    first, second = np.nonzero(rates)
    order = np.lexsort((second, first, -rates[first, second]))
    return [(int(first[i]), int(second[i])) for i in order]


def _joined(left: list[int], right: list[int], first: int, second: int) -> list[int]:
    """Return two chains as one; `first` is in `left` and `second` in `right`."""
    if left.index(first) < len(left) / 2 - 0.5:
        left = left[::-1]
    if right.index(second) > len(right) / 2 - 0.5:
        right = right[::-1]
    return left + right
