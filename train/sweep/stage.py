"""What a stage of a sweep does for one run: train it, and answer on a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finedge.train.sweep.plan import SweepRun
from finedge.train.sweep.rows import Answers


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        val: answers on the val split; no images where there is none.
        loss: of the last epoch, on training images.
        parameters: that were trained.
    """

    val: Answers
    loss: float
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """Return a row's part as plain data."""
        counts = {"loss": round(self.loss, 6), "parameters": self.parameters}
        return {"val": self.val.to_json(), **counts}


class Stage(Protocol):
    """How the runs of a sweep are trained."""

    def train(self, run: SweepRun, *, weights: Path) -> Trained:
        """Train a run, and keep its weights at `weights`."""

    def test(self, run: SweepRun, *, weights: Path) -> Answers:
        """Return the answers of a trained run on the test split."""

    def whole(self, run: SweepRun, *, weights: Path, spare: Path) -> Path:
        """Return the folder of a run that `finedge export` reads; `spare` may become it."""
