"""How the second look is placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finedge.errors import UsageError

LookView = Literal["auto", "attention", "cam"]
CROP = 0.9  # chosen on val, of 0.4 to 0.9


@dataclass(frozen=True)
class LookOptions:
    """A second look at a part of each frame.

    Attributes:
        look_twice: classify the part of each frame at the peak of a map again, and average both
            scores. It doubles the time of a frame.
        look_crop: side of that part, as a share of the first crop's side; more than 0, at most 1.
            Val chose 0.9, of 0.4 to 0.9.
        look_view: the map: attention (or the model's masks), or cam (evidence for the class that
            the first look names). auto is cam where the bundle has it, else attention.
    """

    look_twice: bool = False
    look_crop: float = CROP
    look_view: LookView = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.look_crop <= 1:
            raise UsageError(
                f"--look-crop {self.look_crop}", expected="a share of the crop: over 0, at most 1"
            )
        if not self.look_twice and (self.look_crop, self.look_view) != (CROP, "auto"):
            raise UsageError(
                "--look-crop or --look-view without --look-twice",
                expected="a second look to place",
                fix="add --look-twice",
            )


ONE_LOOK = LookOptions()
