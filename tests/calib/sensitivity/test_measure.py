import numpy as np
import pytest

from benchmarks.cpu.poison import Injection, places, poisoned
from finedge.calib.decision.compare import Decision
from finedge.calib.decision.decision_set import DecisionImages
from finedge.calib.int8_files import CalibratedModel
from finedge.calib.plan import QuantizationPlan
from finedge.calib.ranges.observe import collect_tables
from finedge.calib.sensitivity.measure import rank_units, units_of
from tests.calib.conftest import SPEC, batches, pictures

PLAN = QuantizationPlan()
# Both forms of the float model compute the same numbers in another order.
ROUNDING = 0.02


def calibrated(model):
    tables = collect_tables(model, batches(pictures(32, seed=2)[0]), methods=("max",))
    return CalibratedModel(model, SPEC, tables)


def ranking(model):
    case, images = calibrated(model), DecisionImages(*pictures(32, seed=5))
    decision = Decision(model, SPEC, images)
    ranked = rank_units(case, PLAN, units=units_of(case, PLAN), decision=decision)
    return ranked, decision.float_scores


@pytest.mark.parametrize("kind", ["weight", "activation"])
def test_a_poisoned_layer_ranks_first(tiny, kind):
    scores = ranking(tiny.model)[1]
    for layer, before in places(tiny.model, kind):
        injection = Injection(kind, layer, before, channel=8)
        ranked, same = ranking(poisoned(tiny.model, injection, table=tiny.table))
        assert np.abs(same - scores).max() < ROUNDING * np.abs(scores).max(), injection
        ends = {layer, before} if kind == "activation" else {layer}
        assert ranked[0].unit.name in ends, injection


def test_a_row_has_the_share_of_operations_and_the_damage(tiny):
    ranked, _ = ranking(tiny.model)
    units = units_of(calibrated(tiny.model), PLAN)
    rows = [entry.to_json(units) for entry in ranked]
    assert [row["kl"] for row in rows] == sorted((row["kl"] for row in rows), reverse=True)
    assert 0.5 < sum(row["macs"] for row in rows) < 1
