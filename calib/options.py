"""The options of `finedge calibrate`, checked as they are read."""

from __future__ import annotations

from dataclasses import dataclass

from finedge.calib.plan import QuantizationPlan
from finedge.errors import UsageError


@dataclass(frozen=True)
class Int8Options:
    """How the INT8 files are made.

    Attributes:
        images: how many training images to calibrate with, balanced over the classes.
        method: max keeps every value; percentile cuts off the largest 0.01 % of magnitudes.
        seed: chooses the images.
        decision_images: how many other training images decide between INT8 files, where there is
            something to decide.
    """

    images: int = 256
    method: str = "max"
    seed: int = 0
    decision_images: int = 256

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"--images {self.images}", expected="at least 1")

    @property
    def methods(self) -> tuple[str, ...]:
        """The collectors whose ranges the pass must gather."""
        return (self.method,)

    @property
    def decides(self) -> bool:
        """Whether an option needs the decision set."""
        return False

    @property
    def plan(self) -> QuantizationPlan:
        """The plan before anything is decided."""
        return QuantizationPlan(self.method)


@dataclass(frozen=True)
class ConfidenceOptions:
    """How the confidence of each variant is fitted.

    Attributes:
        max_false_rejects: the largest share of right answers that may become "unknown". A larger
            share rejects more pictures of other things.
    """

    max_false_rejects: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.max_false_rejects < 1:
            raise UsageError(
                f"--max-false-rejects {self.max_false_rejects}",
                expected="a share of the right answers, 0 <= share < 1",
            )
