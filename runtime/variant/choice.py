"""A choice: the variant that `auto` runs on a machine, why, and what was measured for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from finedge.runtime.variant.rule import Verdict
from finedge.schema import Text

# measured: now. remembered: at an earlier start. single: no other variant can be chosen.
# unchecked: the check is switched off.
Basis = Literal["measured", "remembered", "single", "unchecked"]


@dataclass(frozen=True)
class Choice:
    """What `auto` runs.

    Attributes:
        variant: fp32, fp16 or int8.
        reason: why, in a sentence without its full stop.
        basis: where the choice comes from.
        verdicts: on each variant that was compared, in their order.
        ms: the median milliseconds of a 1280 x 720 frame from decoded to top-k, by variant.
        measured_at: when, in seconds since 1970; 0 where nothing was timed.
        other_backend: the backend that runs it in place of the first that can; "" is none.
    """

    variant: Text
    reason: Text
    basis: Basis
    verdicts: tuple[Verdict, ...] = ()
    ms: Mapping[str, float] = field(default_factory=dict)
    measured_at: float = 0.0
    other_backend: Text = ""

    @property
    def is_settled(self) -> bool:
        """Whether a longer measurement would not change it."""
        return all(v.speed is not None and v.speed.is_settled for v in self.verdicts)

    def verdict(self, variant: str) -> Verdict | None:
        """Return the verdict on a variant, or None where it was not compared."""
        return next((v for v in self.verdicts if v.variant == variant), None)

    def __str__(self) -> str:
        return f"auto runs {self.variant.upper()} on this machine: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
