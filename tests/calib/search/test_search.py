"""The search on numbers that are made up: each unit in INT8 costs what a table says."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from finedge.calib.decision.compare import Comparison
from finedge.calib.decision.damage import Damage
from finedge.calib.quantizers.units import Unit, Units
from finedge.calib.search.outcome import OFFERED, fastest_first, offer
from finedge.calib.search.search import LEAST_INT8, by_gain, greedy, search
from finedge.calib.search.trials import Point
from finedge.calib.sensitivity.measure import Sensitivity

YES = np.ones(2, bool)


def damage(cost):
    comparison = Comparison(np.full(2, cost), YES, YES, YES)
    return Damage(comparison, np.full(4, cost))


@dataclass
class Table:
    """Units of equal size, and the expected drop that each one in INT8 adds."""

    costs: dict[str, float]
    tried: list[frozenset] = field(default_factory=list)

    def __post_init__(self):
        self.units = Units(
            tuple(Unit(name, "Conv", frozenset({name}), 1) for name in self.costs), len(self.costs)
        )

    def try_float(self, names):
        self.tried.append(frozenset(names))
        cost = sum(c for name, c in self.costs.items() if name not in names)
        return Point(tuple(sorted(names)), damage(cost), self.units.int8_share(names))


def order(table, names):
    return [next(u for u in table.units.all if u.name == name) for name in names]


def costs(**extra):
    return {**{f"u{i}": 0.0 for i in range(20)}, **extra}


def test_nothing_goes_into_float_where_the_budget_is_met():
    table = Table(costs(bad=0.002))
    assert search(table, table.units.all, budget=0.01).in_float == ()


def test_only_the_units_that_the_budget_needs_stay_in_float():
    table = Table(costs(bad=0.5, worse=0.6))
    names = ["u1", "worse", "u2", "u3", "bad", "u4", "u5"]
    rest = [name for name in table.costs if name not in names]
    point = search(table, order(table, [*names, *rest]), budget=0.01)
    assert point.in_float == ("bad", "worse")
    assert greedy(table, order(table, [*names, *rest]), budget=0.01).in_float == tuple(
        sorted(names[:5])
    )


def test_a_budget_that_half_of_the_model_in_int8_cannot_meet_has_no_point():
    table = Table({f"u{i}": 0.1 for i in range(20)})
    assert search(table, table.units.all, budget=0.01) is None
    assert greedy(table, table.units.all, budget=0.01) is None
    assert min(table.units.int8_share(names) for names in table.tried) >= LEAST_INT8


def test_the_order_is_that_of_kl_for_a_millisecond():
    ranking = [
        Sensitivity(Unit(name, "Conv", frozenset({name}), 1), damage(kl))
        for name, kl in (("dear", 0.4), ("cheap", 0.3), ("free", 0.01), ("untimed", 0.005))
    ]
    names = [u.name for u in by_gain(ranking, {"dear": 1.0, "cheap": 0.1, "free": -0.02})]
    assert names == ["cheap", "free", "dear", "untimed"]


def point(*names, kl, ms=None, share=None):
    return Point(names, damage(kl), 1 - 0.01 * len(names) if share is None else share, ms)


def test_a_point_that_is_slower_and_worse_is_not_offered():
    every = point(kl=0.3, ms=1.0)
    good, slow = point("a", kl=0.001, ms=1.2), point("b", kl=0.1, ms=1.3)
    best = point("a", "b", kl=0.0005, ms=1.5)
    assert fastest_first([slow, best, every, good], budget=0.01) == (every, good, best)


def test_the_only_point_within_the_budget_is_always_offered():
    every, best = point(kl=0.3, ms=1.0), point("a", kl=0.001, ms=1.2)
    assert best in offer([every, best, point("b", kl=0.0001, share=1.0)], best)


def test_at_most_ten_points_are_offered():
    points = [point(*"x" * i, kl=1 / (i + 1)) for i in range(40)]
    offered = offer(points, points[17])
    assert len(offered) == OFFERED
    assert points[0] in offered
    assert points[17] in offered


@pytest.mark.parametrize("budget", [0.0, 0.004])
def test_the_limit_counts_where_the_images_lost_nothing(budget):
    assert not damage(0.005).within(budget)
