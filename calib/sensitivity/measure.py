"""Sensitivity: the damage of one unit in INT8 while the rest of the model computes in float.

The other way, all of INT8 but one unit, costs more time: 58 s of CPU time against 11 s for the 50
units of EfficientNet-Lite0 and 16 images, because the quantizer treats every layer each time. It
also sees less: a tensor is quantized where either of the layers at its ends is, so an outlier in it
stays with any single unit in float. A poisoned layer ranked first in 20 of 20 models
(benchmarks/results/max_drop/poison-grocery-plain-bicubic.json).

The biases are not corrected here, as they were not in those 20 models. A correction takes 40 % of
the CPU time of a calibration (`max` against `max-uncorrected` in
benchmarks/results/calibration/grocery-plain-bicubic.json), and each unit would pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import onnx

from finedge.calib.decision.compare import Decision
from finedge.calib.decision.damage import Damage, measure_damage
from finedge.calib.int8_files import CalibratedModel, cpu_model
from finedge.calib.plan import QuantizationPlan
from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.units import Unit, Units, find_units
from finedge.progress import progress_bar


@dataclass(frozen=True)
class Sensitivity:
    """A unit, and the damage when it alone computes in INT8."""

    unit: Unit
    damage: Damage

    def to_json(self, units: Units) -> dict[str, Any]:
        """Return a row of the table; `macs` is the unit's share of those of the model."""
        return {
            "layer": self.unit.name,
            "module": self.unit.module,
            "kind": self.unit.kind,
            "macs": round(self.unit.macs / units.macs, 6),
            **self.damage.to_json(),
        }


def units_of(calibrated: CalibratedModel, plan: QuantizationPlan) -> Units:
    """Return the units that a plan puts into INT8 on the CPU."""
    table = calibrated.tables[plan.method]
    _, report = quantize_for_onnxruntime(calibrated.model, table, keep_float=plan.keep_float)
    return find_units(calibrated.model, report.int8)


def rank_units(
    calibrated: CalibratedModel, plan: QuantizationPlan, *, units: Units, decision: Decision
) -> tuple[Sensitivity, ...]:
    """Return the sensitivity of every unit, the most sensitive first: by KL.

    Each costs one run of the float model over the decision set. Biases are not corrected.
    """
    plan = replace(plan, bias_correction=False)
    with progress_bar("measuring layers", len(units.all)) as advance:
        ranked = []
        for unit in units.all:
            alone = alone_in_int8(calibrated, plan, units=units.all, names={unit.name})
            ranked.append(Sensitivity(unit, measure_damage(decision, decision.scores(alone))))
            advance(1)
    return tuple(sorted(ranked, key=lambda s: -s.damage.kl))


def alone_in_int8(
    calibrated: CalibratedModel,
    plan: QuantizationPlan,
    *,
    units: Sequence[Unit],
    names: Set[str],
) -> onnx.ModelProto:
    """Return the CPU model of a plan with only the units `names` in INT8.

    Its biases are not corrected: the float layers after a unit would hide a part of its damage, and
    each unit would cost another pass over the images of the correction.
    """
    others = (unit.nodes for unit in units if unit.name not in names)
    keep_float = plan.keep_float.union(*others)
    alone = replace(plan, keep_float=keep_float, bias_correction=False)
    return cpu_model(calibrated, alone)
