"""What a search found: the points to pick from, the default pick, and the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from finedge.calib.decision.compare import Decision
from finedge.calib.decision.damage import HARD_VIEW, first_images
from finedge.calib.decision.decision_set import DecisionImages
from finedge.calib.int8_files import CalibratedModel
from finedge.calib.plan import QuantizationPlan
from finedge.calib.search.search import by_gain, restore_costs, search
from finedge.calib.search.timing import frame_times
from finedge.calib.search.trials import Point, Trials
from finedge.calib.sensitivity.measure import Sensitivity, rank_units, units_of
from finedge.errors import GateError
from finedge.runtime.machine.cpu import cpu_name

RANKED_IMAGES = 64  # images, each with its hard view, for the order of the layers
OFFERED = 10  # points that are timed: the table of a terminal


@dataclass(frozen=True)
class Outcome:
    """The end of a search.

    Attributes:
        budget: the largest drop, as a share.
        points: the offer, the fastest first; none is slower and worse (by KL) than another. The
            point with all units in INT8 is always there.
        picked: the index of the point that the files are made of.
        plan: the plan of that point.
        fp32_ms: the time of the float model in the same run.
        images: the number of decision images, without their hard views.
        ranking: the units by sensitivity.
    """

    budget: float
    points: tuple[Point, ...]
    picked: int
    plan: QuantizationPlan
    fp32_ms: float
    images: int
    ranking: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the record."""
        return {
            "max_drop": round(100 * self.budget, 6),
            "images": self.images,
            "hard_view": list(HARD_VIEW),
            "cpu": cpu_name(),
            "fp32_ms": round(self.fp32_ms, 4),
            "pick": self.picked + 1,
            "points": [
                {**point.to_json(), "within": point.damage.within(self.budget)}
                for point in self.points
            ],
            "layers": [dict(row) for row in self.ranking],
        }


def keep_within(
    calibrated: CalibratedModel,
    plan: QuantizationPlan,
    *,
    images: DecisionImages,
    max_drop: float,
) -> Outcome:
    """Find the fastest plan whose drop is at most `max_drop` points, and others to pick from.

    Args:
        calibrated: the float model and its ranges.
        plan: every other choice of the quantization.
        images: the decision set with hard views (`with_hard_views`).
        max_drop: the budget in points of top-1.

    Raises:
        GateError: no file with at least half of its operations in INT8 is within the budget.
    """
    units = units_of(calibrated, plan)
    few = Decision(calibrated.model, calibrated.spec, first_images(images, count=RANKED_IMAGES))
    ranking = rank_units(calibrated, plan, units=units, decision=few)
    trials = Trials(calibrated, plan, units, Decision(calibrated.model, calibrated.spec, images))
    costs = restore_costs(trials, ranking)
    budget = max_drop / 100
    best = search(trials, by_gain(ranking, costs), budget=budget)
    points, fp32_ms = _timed(trials, offer(list(trials.points.values()), best), budget=budget)
    if best is None:
        raise _unreachable(points, max_drop=max_drop)
    picked = next(i for i, point in enumerate(points) if point.damage.within(budget))
    rows = tuple(_row(s, trials, costs) for s in ranking)
    chosen = trials.plan_of(frozenset(points[picked].in_float))
    return Outcome(budget, points, picked, chosen, fp32_ms, len(images.labels) // 2, rows)


def offer(points: Sequence[Point], best: Point | None) -> list[Point]:
    """Return at most ten points: no other has more in INT8 and a smaller KL; `best` is one."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.int8_share, p.damage.kl)):
        if point is best or not kept or point.damage.kl < min(p.damage.kl for p in kept):
            kept.append(point)
    while len(kept) > OFFERED:  # the neighbour that differs least
        gaps = [a.int8_share - b.int8_share for a, b in pairwise(kept)]
        order = sorted(range(1, len(kept)), key=lambda i: gaps[i - 1])
        kept.pop(next(i for i in order if kept[i] is not best))
    return kept


def _timed(
    trials: Trials, points: Sequence[Point], *, budget: float
) -> tuple[tuple[Point, ...], float]:
    """Time points and the float model in turn."""
    models = [trials.model(frozenset(point.in_float)) for point in points]
    frame = trials.decision.images.frames[0]
    *times, fp32_ms = frame_times([*models, trials.calibrated.model], frame)
    timed = [replace(point, ms=ms) for point, ms in zip(points, times, strict=True)]
    return fastest_first(timed, budget=budget), fp32_ms


def fastest_first(points: Sequence[Point], *, budget: float) -> tuple[Point, ...]:
    """Return the points in the order of their times, without those that are slower and worse.

    Worse is a larger KL; a point within the budget is never worse than one that is not. The point
    with all units in INT8 stays, as the one to compare with.
    """
    front: list[Point] = []
    smallest, any_within = float("inf"), False
    for point in sorted(points, key=lambda p: (p.ms or 0.0, p.damage.kl)):
        first_within = point.damage.within(budget) and not any_within
        if first_within or point.damage.kl < smallest or not point.in_float:
            front.append(point)
            smallest = min(smallest, point.damage.kl)
            any_within = any_within or first_within
    return tuple(front)


def _row(sensitivity: Sensitivity, trials: Trials, costs: Mapping[str, float]) -> dict[str, Any]:
    cost = costs.get(sensitivity.unit.name)
    row = sensitivity.to_json(trials.units)
    return {**row, "float_ms": None if cost is None else round(cost, 4)}


def _unreachable(points: Sequence[Point], *, max_drop: float) -> GateError:
    best = min(points, key=lambda p: max(p.damage.drop, p.damage.limit))
    drop, limit = 100 * best.damage.drop, 100 * best.damage.limit
    return GateError(
        f"--max-drop {max_drop:g} cannot be met: the best INT8 file with at least half of its "
        f"operations in INT8 drops {drop:.2f} points, at most {limit:.2f} are expected",
        expected=f"a drop of at most {max_drop:g} points",
        fix="give a larger --max-drop, or use fp32",
        result={
            "max_drop": max_drop,
            "best": best.to_json(),
            "points": [point.to_json() for point in points],
        },
    )
