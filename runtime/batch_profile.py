"""The batch sizes that an engine serves, whichever library builds it."""

from __future__ import annotations

from dataclasses import dataclass

from finedge.errors import UsageError

MAX_BATCH = 1_000_000


@dataclass(frozen=True)
class Profile:
    """The batch sizes that an engine serves: from `min` to `max`, fastest at `opt`."""

    min: int = 1
    opt: int = 1
    max: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max <= MAX_BATCH:
            raise UsageError(
                f"batch profile {self.min},{self.opt},{self.max}",
                expected=f"1 <= min <= opt <= max <= {MAX_BATCH}",
                fix="--batch 1,1,8",
            )

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Read "min,opt,max", or one number for all three.

        Raises:
            UsageError: the text is neither, or the numbers are out of order.
        """
        parts = text.split(",")
        if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(
                f"batch profile '{text}'",
                expected="min,opt,max, or one number",
                fix="--batch 1,1,8",
            )
        sizes = [int(part) for part in parts]
        return cls(*(sizes * 3 if len(sizes) == 1 else sizes))
