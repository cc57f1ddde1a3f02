"""The options of `finedge calibrate` that choose the layers in float."""

from __future__ import annotations

from dataclasses import dataclass

from finedge.errors import UsageError


@dataclass(frozen=True)
class SearchOptions:
    """Which layers stay in float.

    Attributes:
        max_drop: the most points of top-1 that INT8 may lose. Layers stay in float until the drop
            on training images that did not calibrate is within it.
        pick: make the files of another point of the last search: its number in the table.
    """

    max_drop: float | None = None
    pick: int | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(f"--max-drop {self.max_drop:g}", expected="points of top-1, 0 to 100")
        if self.max_drop is not None and self.pick is not None:
            raise UsageError(
                "--max-drop and --pick together",
                expected="one of them",
                fix="search with --max-drop, then choose from its table with --pick",
            )
        if self.pick is not None and self.pick < 1:
            raise UsageError(f"--pick {self.pick}", expected="the number of a point, from 1")

    @property
    def decides(self) -> bool:
        """Whether the search needs the decision set."""
        return self.max_drop is not None
