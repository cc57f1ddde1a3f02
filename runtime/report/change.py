"""How a top-1 share differs from another's on the same images, as report.json has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from finedge.errors import DataError
from finedge.schema import Share, between

Difference = Annotated[float, between(-1, 1)]


@dataclass(frozen=True)
class Change95:
    """A change of top-1; all or none of it is known."""

    top1_change: Difference | None = None
    top1_change95: tuple[Difference, Difference] | None = None
    mcnemar_p: Share | None = None

    def __post_init__(self) -> None:
        values = (self.top1_change, self.top1_change95, self.mcnemar_p)
        if None in values and any(value is not None for value in values):
            raise DataError(
                "a part of a change",
                expected="top1_change, top1_change95 and mcnemar_p together",
            )
