"""The search: units go into float until the damage is within the budget, and others come back.

The order is that of KL saved for each millisecond that float costs. Forward: 0, 1, 2, 4, ... units
of that order go into float until the budget is met; then the smallest number is bisected. Backward:
units come back to INT8, those that save the fewest KL for a millisecond first, as long as the
budget is met.

`greedy` is the plain search that it is compared with. With three poisoned layers of EfficientNet-
Lite0, both ended at exactly these three, with either order: `greedy` after 4 trials, this search
after 10. More layers in float do not always lower the observed drop: by KL alone it was -0.8 points
with 4 layers in float, and 0.0 with 8 (searches-grocery-plain.json). On the same network with
another resize, this search ended at 4 layers after 13 trials, and `greedy` at 3 after 4; what was
tried on the way was not recorded there. On test images the two were alike. The order by KL alone
ended at 2 layers there, and lost 1.5 points of top-1 on test images
(searches-grocery-plain-bicubic.json; both files are in benchmarks/results/max_drop/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finedge.calib.quantizers.units import Unit
from finedge.calib.search.timing import frame_times
from finedge.calib.search.trials import Point, Trials
from finedge.calib.sensitivity.measure import Sensitivity

# Of the operations that INT8 can compute. With less the file is hardly faster than float: the
# budget cannot be met.
LEAST_INT8 = 0.5
# Units whose cost is measured; the rest of a ranking has a few percent of the KL together.
TIMED = 16
LEAST_MS = 0.005  # what the timing can tell apart; a unit that costs less is taken to cost this


def restore_costs(
    trials: Trials, ranking: Sequence[Sensitivity], *, units: int = TIMED
) -> dict[str, float]:
    """Return the milliseconds that each of the most sensitive units costs in float.

    Each is timed against the whole INT8 model, in turn.
    """
    baseline, frame = trials.model(frozenset()), trials.decision.images.frames[0]
    costs = {}
    for sensitivity in ranking[:units]:
        name = sensitivity.unit.name
        before, after = frame_times([baseline, trials.model({name})], frame)
        costs[name] = after - before
    return costs


def by_gain(ranking: Sequence[Sensitivity], costs: dict[str, float]) -> list[Unit]:
    """Return the units by KL for a millisecond, the best first; those without a cost by KL."""
    timed = [s for s in ranking if s.unit.name in costs]
    timed.sort(key=lambda s: -s.damage.kl / max(costs[s.unit.name], LEAST_MS))
    return [s.unit for s in (*timed, *(s for s in ranking if s.unit.name not in costs))]


def greedy(trials: Trials, order: Sequence[Unit], *, budget: float) -> Point | None:
    """Put one unit after another into float until the damage is within `budget`, a share."""
    for count in range(_longest(trials, order) + 1):
        point = _prefix(trials, order, count)
        if point.damage.within(budget):
            return point
    return None


def search(trials: Trials, order: Sequence[Unit], *, budget: float) -> Point | None:
    """Return the point that both passes end at; None where no prefix of `order` is good enough."""
    failed = -1
    for count in _doubling(_longest(trials, order)):
        if _prefix(trials, order, count).damage.within(budget):
            for more in (
                2 * count or 1,
                4 * count or 2,
                8 * count or 4,
            ):  # to pick from, with a smaller drop
                _prefix(trials, order, min(more, _longest(trials, order)))
            point = _bisect(trials, order, failed=failed, good=count, budget=budget)
            return _put_back(trials, order, point, budget=budget)
        failed = count
    return None


def _bisect(
    trials: Trials, order: Sequence[Unit], *, failed: int, good: int, budget: float
) -> Point:
    """Return the shortest prefix that is good enough; one of `failed` units is not."""
    while good - failed > 1:
        middle = (failed + good) // 2
        if _prefix(trials, order, middle).damage.within(budget):
            good = middle
        else:
            failed = middle
    return _prefix(trials, order, good)


def _put_back(trials: Trials, order: Sequence[Unit], point: Point, *, budget: float) -> Point:
    """Put each unit back into INT8 that the budget does not need in float, the last first."""
    for unit in reversed(order):
        if unit.name in point.in_float:
            fewer = trials.try_float(frozenset(point.in_float) - {unit.name})
            point = fewer if fewer.damage.within(budget) else point
    return point


def _prefix(trials: Trials, order: Sequence[Unit], count: int) -> Point:
    return trials.try_float({unit.name for unit in order[:count]})


def _longest(trials: Trials, order: Sequence[Unit]) -> int:
    """Return how many units of `order` may be in float."""
    names = [unit.name for unit in order]
    shares = (trials.units.int8_share(names[:count]) for count in range(len(names)))
    least = LEAST_INT8 * trials.units.int8_share(())
    return sum(share >= least for share in shares) - 1


def _doubling(longest: int) -> Iterator[int]:
    """Yield 0, 1, 2, 4, ... and at last `longest`."""
    count = 0
    while count < longest:
        yield count
        count = max(1, 2 * count)
    yield longest
