"""Trials: INT8 models with some units in float, each with its damage on the decision set."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from finedge.calib.decision.compare import Decision
from finedge.calib.decision.damage import Damage, measure_damage
from finedge.calib.int8_files import CalibratedModel, cpu_model
from finedge.calib.plan import QuantizationPlan
from finedge.calib.quantizers.units import Units


@dataclass(frozen=True)
class Point:
    """An INT8 model that a user may pick.

    Attributes:
        in_float: the names of the units in float, in running order.
        damage: on the decision set.
        int8_share: the share of the model's multiply-accumulates in INT8.
        ms: the median CPU time of one frame on one thread; None where it was not measured.
    """

    in_float: tuple[str, ...]
    damage: Damage
    int8_share: float
    ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the record."""
        ms = None if self.ms is None else round(self.ms, 4)
        numbers = {"ms": ms, **self.damage.to_json(), "int8_macs": round(self.int8_share, 6)}
        return {**numbers, "in_float": list(self.in_float)}


@dataclass
class Trials:
    """Makes and measures INT8 models; each choice of units is tried once.

    Args:
        calibrated: the float model and its ranges.
        plan: every other choice of the quantization.
        units: the units to choose from.
        decision: the decision set, with hard views.
    """

    calibrated: CalibratedModel
    plan: QuantizationPlan
    units: Units
    decision: Decision
    points: dict[frozenset[str], Point] = field(default_factory=dict)

    def try_float(self, names: Set[str]) -> Point:
        """Return the point with the units `names` in float."""
        key = frozenset(names)
        if key not in self.points:
            damage = measure_damage(self.decision, self.decision.scores(self.model(key)))
            in_order = tuple(unit.name for unit in self.units.all if unit.name in key)
            self.points[key] = Point(in_order, damage, self.units.int8_share(key))
        return self.points[key]

    def model(self, names: Set[str]) -> onnx.ModelProto:
        """Return the CPU model with the units `names` in float."""
        return cpu_model(self.calibrated, self.plan_of(names))

    def plan_of(self, names: Set[str]) -> QuantizationPlan:
        """Return the plan with the units `names` in float."""
        keep_float = self.plan.keep_float | self.units.nodes_of(names)
        return replace(self.plan, keep_float=keep_float)
