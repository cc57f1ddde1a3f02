"""The confusion matrix of labelled images, the accuracy of each class, and the worst pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.data import Item

WORST_PAIRS = 12  # in a result and on a page


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another class.

    Attributes:
        truth: the label of the images.
        answer: the label that the classifier gave instead.
        images: how many were taken for `answer`.
        of: how many images of `truth` there are.
        example: the first of these images.
        typical: an image of `answer`, rightly named if there is one; None if there is no image.
    """

    truth: str
    answer: str
    images: int
    of: int
    example: Item
    typical: Item | None

    def record(self, root: Path) -> dict[str, Any]:
        """Return the pair as a result of a command names it; the example is relative to `root`."""
        path = self.example.path
        return {
            "class": self.truth,
            "taken_for": self.answer,
            "images": self.images,
            "of": self.of,
            "example": str(path.relative_to(root) if path.is_relative_to(root) else path),
        }


@dataclass(frozen=True)
class Confusion:
    """What a classifier named first for labelled images.

    Attributes:
        labels: the C classes.
        items: the n images with their classes.
        answers: the class that was named first for each image, int [n].
    """

    labels: tuple[str, ...]
    items: tuple[Item, ...]
    answers: NDArray[np.int64]

    @cached_property
    def truths(self) -> NDArray[np.int64]:
        """The class of each image: int64 [n]."""
        return np.array([item.label for item in self.items], dtype=np.int64)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The number of images by class (row) and answer (column): int64 [C, C]."""
        size = len(self.labels)
        cells = np.bincount(self.truths * size + self.answers, minlength=size * size)
        return cells.reshape(size, size).astype(np.int64)

    @cached_property
    def errors(self) -> NDArray[np.int64]:
        """The counts without the diagonal: int64 [C, C]."""
        errors: NDArray[np.int64] = self.counts - np.diag(np.diag(self.counts))
        return errors

    def worst_pairs(self, limit: int = WORST_PAIRS) -> tuple[Pair, ...]:
        """Return the pairs with the most images, the largest first.

        Of equal numbers the larger share of its class comes first, then the order of the labels.
        """
        truths, answers = np.nonzero(self.errors)
        images, of = self.errors[truths, answers], self.counts.sum(axis=1)[truths]
        order = np.lexsort((answers, truths, -images / of, -images))[:limit]
        return tuple(self._pair(int(truths[i]), int(answers[i])) for i in order)

    def _pair(self, truth: int, answer: int) -> Pair:
        example = self._first(truth, answer)
        assert example is not None  # the pair was counted
        return Pair(
            self.labels[truth],
            self.labels[answer],
            images=int(self.counts[truth, answer]),
            of=int(self.counts[truth].sum()),
            example=example,
            typical=self._first(answer, answer) or self._first(answer),
        )

    def _first(self, truth: int, answer: int | None = None) -> Item | None:
        """Return the first image of a class, of those with a certain answer if one is given."""
        mask = self.truths == truth
        if answer is not None:
            mask &= self.answers == answer
        indices = np.flatnonzero(mask)
        return self.items[int(indices[0])] if len(indices) else None
