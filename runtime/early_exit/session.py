"""A session that stops early: segments run in turn, and only the rows that are not sure go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.early_exit import ExitRule
from finedge.ops import softmax
from finedge.runtime.backend import SessionInfo, check_batch
from finedge.runtime.model_io import check_scores
from finedge.spec import Spec

Arrays = Mapping[str, NDArray[Any]]


class Segment(Protocol):
    """A part of a model that is open."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the arrays that it reads."""

    def __call__(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Take arrays of one batch by name, more than the inputs too; return the outputs."""

    def close(self) -> None:
        """Free it."""


@dataclass(frozen=True)
class Sureness:
    """What an exit makes of its head's scores.

    Attributes:
        rule: the exit's temperature and threshold.
        temperature: that of the whole model, by which the classifier divides all scores.
    """

    rule: ExitRule
    temperature: float

    def sure(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which rows of the head's scores [B, classes] leave: bool [B]."""
        if self.rule.threshold is None:
            return np.zeros(len(scores), np.bool_)
        top = softmax(scores / np.float32(self.rule.temperature)).max(axis=1)
        return np.asarray(top >= self.rule.threshold)

    def rescaled(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores whose softmax at the model's temperature is the head's at its own."""
        return scores * np.float32(self.temperature / self.rule.temperature)


class EarlyExitSession:
    """The open segments of a bundle's variant.

    `taken` is the exit at which each row of the last batch left, int [B]. The number of exits
    stands for the end of the model.

    Args:
        segments: one more than there are rules, in running order.
        bundle: what they are part of.
        rules: when a row leaves after each segment but the last.
        info: what runs.
        temperature: by which the scores of the whole model are divided later.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        bundle: Bundle,
        *,
        rules: Sequence[ExitRule],
        info: SessionInfo,
        temperature: float = 1.0,
    ) -> None:
        self._segments = tuple(segments)
        self._spec: Spec = bundle.spec
        self._exits = tuple(Sureness(rule, temperature) for rule in rules)
        self.info = info
        self.taken: NDArray[np.intp] = np.zeros(0, np.intp)
        self.counts: NDArray[np.intp] = np.zeros(len(self._segments), np.intp)

    @property
    def exits(self) -> tuple[ExitRule, ...]:
        """The rules, in running order."""
        return tuple(one.rule for one in self._exits)

    @property
    def exit_count(self) -> int:
        """The number of exits."""
        return len(self._exits)

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return the main output only, float32 [B, classes].

        A row that left has the scores of its exit, scaled so that the model's temperature gives the
        exit's calibrated probabilities. The local outputs are left out: later ones do not exist for
        a row that left.
        """
        check_batch(batch, self._spec)
        main, rows = self._spec.main.name, np.arange(len(batch))
        scores = np.empty((len(batch), len(self._spec.labels)), np.float32)
        taken = np.full(len(batch), len(self._exits), np.intp)
        arrays: dict[str, NDArray[Any]] = {self._spec.input.name: batch}
        for index, segment in enumerate(self._segments):
            arrays |= segment(arrays)
            if index == len(self._exits):
                scores[rows] = self._checked(arrays, main, len(rows))[main]
                break
            exit_scores, sure = self._leaving(index, arrays)
            if sure.any():
                scores[rows[sure]], taken[rows[sure]] = exit_scores[sure], index
                rows = rows[~sure]
                if not len(rows):
                    break
                arrays = {name: array[~sure] for name, array in arrays.items()}
        self.taken = taken
        self.counts += np.bincount(taken, minlength=len(self._segments))
        return {main: scores}

    def close(self) -> None:
        """Close the segments."""
        for segment in self._segments:
            segment.close()

    def _leaving(self, index: int, arrays: Arrays) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the scores that an exit answers with, and which rows leave there."""
        one = self._exits[index]
        scores = np.asarray(arrays[one.rule.output], np.float32)
        return one.rescaled(scores), one.sure(scores)

    def _checked(self, arrays: Arrays, main: str, rows: int) -> Arrays:
        outputs = {o.name: arrays[o.name] for o in self._spec.outputs if o.name in arrays}
        check_scores(outputs, self._spec, rows=rows, file=self.info.file)
        return {main: np.asarray(arrays[main], np.float32)}
