"""What a row measures: a variant of a bundle, with or without early exits."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Key:
    """One thing that is measured.

    Attributes:
        bundle: the bundle's name in the report.
        variant: fp32, fp16 or int8.
        early_exit: whether frames may leave early.
    """

    bundle: str
    variant: str
    early_exit: bool = False

    @property
    def whole(self) -> Key:
        """The same without early exits."""
        return replace(self, early_exit=False)

    @property
    def contender(self) -> Key:
        """The same in no variant: what is compared with another bundle."""
        return replace(self, variant="")
