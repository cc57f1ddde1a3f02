"""The rule: a variant must be faster than the one before it, beyond noise, and as accurate.

The variants come as fp32, fp16, int8. Each takes the place of the one chosen so far if it is faster
end to end, and its drop is small: not beyond chance and at most 2 points, or at most 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finedge.provenance import AccuracyCost
from finedge.runtime.report.verdict import ALPHA, points
from finedge.runtime.variant.speed import Speed
from finedge.runtime.variant.timing import Timing

# A drop of at most this many shares of top-1 is accepted although it is beyond chance.
TOLERANCE = 0.005
# A larger drop is not accepted although it may be chance. Few images prove little: 3.7 points on
# 296 images have p = 0.09. This project allows a drop of 1 point; 2 leaves room for the noise of
# 300 images: where 5 % of the answers change, the standard error of the drop is up to 1.3 points.
MAX_DROP_BY_CHANCE = 0.02
NO_RECORD = "the bundle does not say what it costs in accuracy (finedge calibrate writes that)"


@dataclass(frozen=True)
class Verdict:
    """Whether a variant takes the place of another.

    Attributes:
        variant: the one in question.
        other: the one that was chosen so far.
        speed: how many times as fast it is; None where it was not timed.
        cost: what it costs in accuracy; None where the bundle does not say it.
        islands: what stays in float in it, in words.
    """

    variant: str
    other: str
    speed: Speed | None
    cost: AccuracyCost | None
    islands: str = ""

    @property
    def is_faster(self) -> bool:
        """Whether it is faster beyond noise."""
        return self.speed is not None and self.speed.is_faster

    @property
    def is_accurate(self) -> bool:
        """Whether its drop is accepted (`is_accurate`); true where it is unknown."""
        return self.cost is None or is_accurate(self.cost)

    @property
    def wins(self) -> bool:
        """Whether it takes the place of the other."""
        return self.is_faster and self.is_accurate

    @property
    def reason(self) -> str:
        """The verdict in one sentence, without its full stop."""
        name = self.variant.upper()
        if not self.is_faster:
            return f"{name} {self._speed_text}{self._island_text}"
        link = "and" if self.is_accurate else "but"
        return f"{name} {self._speed_text}, {link} {self._accuracy_text}"

    @property
    def _speed_text(self) -> str:
        other = self.other.upper()
        if self.speed is None:
            return f"is not shown to be faster than {other}: too few blocks were timed"
        ratio = f"{self.speed.ratio:.2f}x as fast ({self.speed})"
        if self.speed.is_faster:
            return f"is {self.speed.ratio:.2f}x as fast as {other} ({self.speed})"
        if self.speed.is_settled:
            return f"is not faster than {other}: {ratio}"
        return f"shows no difference in speed from {other}: {ratio}"

    @property
    def _accuracy_text(self) -> str:
        if self.cost is None:
            return NO_RECORD
        cost = self.cost
        change = points(cost.top1_change, cost.top1_change95, p=cost.mcnemar_p)
        text = f"its top-1 is {change} on {cost.n} held-out images"
        if self.is_accurate or cost.mcnemar_p < ALPHA:
            return text
        return f"{text}; more than {100 * MAX_DROP_BY_CHANCE:g} points are not left to chance"

    @property
    def _island_text(self) -> str:
        return f"; {self.islands}" if self.islands else ""


def is_accurate(cost: AccuracyCost) -> bool:
    """Tell whether a drop is at most 0.5 points, or at most 2 and may be chance (p >= 0.05)."""
    drop, may_be_chance = -cost.top1_change, cost.mcnemar_p >= ALPHA
    return drop <= (MAX_DROP_BY_CHANCE if may_be_chance else TOLERANCE)


def decide(
    timing: Timing,
    variants: Sequence[str],
    *,
    costs: Mapping[str, AccuracyCost],
    islands: Mapping[str, str],
) -> tuple[str, tuple[Verdict, ...]]:
    """Return the chosen variant, and the verdict on each of the others in turn.

    Args:
        timing: the times of the variants.
        variants: in the order in which they are considered; the first needs no reason.
        costs: what is known of their accuracy.
        islands: what stays in float, in words.
    """
    chosen, verdicts = variants[0], []
    for variant in variants[1:]:
        speed = timing.speed(variant, of=chosen)
        cost, stays = costs.get(variant), islands.get(variant, "")
        verdicts.append(Verdict(variant, chosen, speed, cost, stays))
        if verdicts[-1].wins:
            chosen = variant
    return chosen, tuple(verdicts)
