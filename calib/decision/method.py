"""The choice of a calibration method on the decision set.

The rule: the methods come in the order of `COLLECTORS`, the simplest first. One takes the place of
the best so far only where its mean KL divergence from the float model is lower beyond chance, by a
paired test over the same images. So equal methods, and differences within chance, go to the simpler
one. Top-1 does not decide: a few hundred images do not tell methods apart by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from finedge.calib.decision.compare import Comparison, Decision
from finedge.calib.int8_files import CalibratedModel, cpu_model
from finedge.calib.plan import QuantizationPlan
from finedge.progress import watched
from finedge.provenance import DecisionRecord, MethodRecord

# Standard errors of the paired mean: 99 % on both sides, because three methods challenge the first.
BEYOND_CHANCE = 2.576


@dataclass(frozen=True)
class MethodChoice:
    """The comparison of each method with the float model, and the method of the plan."""

    plan: QuantizationPlan
    comparisons: Mapping[str, Comparison] = field(repr=False)
    reason: str


def choose_method(
    calibrated: CalibratedModel, decision: Decision, *, plan: QuantizationPlan
) -> MethodChoice:
    """Make the CPU model by each method that has a table, compare them, and choose.

    Args:
        calibrated: the float model with the tables of the methods, the simplest first.
        decision: compares with the float model.
        plan: everything but the method.
    """
    methods = watched(calibrated.tables.tables, "comparing methods", total=None)
    comparisons = {
        method: decision.compare(cpu_model(calibrated, replace(plan, method=method)))
        for method in methods
    }
    method = best_method(comparisons)
    return MethodChoice(replace(plan, method=method), comparisons, _reason(method, comparisons))


def best_method(comparisons: Mapping[str, Comparison]) -> str:
    """Return the name of the best comparison by the rule of this module."""
    names = list(comparisons)
    best = names[0]
    for name in names[1:]:
        if is_lower(comparisons[name], comparisons[best]):
            best = name
    return best


def is_lower(challenger: Comparison, best: Comparison) -> bool:
    """Tell whether the divergence of the first is lower than that of the second beyond chance."""
    gains = best.divergence - challenger.divergence
    error = float(gains.std(ddof=1)) / math.sqrt(len(gains))
    return float(gains.mean()) > BEYOND_CHANCE * error


def _reason(method: str, comparisons: Mapping[str, Comparison]) -> str:
    first = next(iter(comparisons))
    if len(comparisons) == 1:
        return f"{method} was asked for"
    if method == first:
        return f"no method is closer to float than {first}, the simplest, beyond chance"
    return f"{method} is closer to float than the simpler methods, beyond chance"


def decision_record(
    choice: MethodChoice,
    *,
    images: int,
    curve: tuple[MethodRecord, ...],
    digests: tuple[str, ...],
) -> DecisionRecord:
    """Return what the provenance keeps of a choice."""
    rows = (method_record(m, images, c) for m, c in choice.comparisons.items())
    float_top1 = float(np.mean(next(iter(choice.comparisons.values())).float_correct))
    return DecisionRecord(
        choice.reason, round(float_top1, 6), tuple(rows), curve, images_sha256=digests
    )


def method_record(method: str, images: int, comparison: Comparison) -> MethodRecord:
    """Return a row of the table of methods."""
    return MethodRecord(method, images, **comparison.to_json())


def measure_curve(
    calibrated: CalibratedModel, decision: Decision, *, plan: QuantizationPlan
) -> tuple[MethodRecord, ...]:
    """Compare the model of a plan with itself for each number of images of the same pass."""
    rows = []
    for tables in watched(calibrated.curve, "comparing numbers of images", total=None):
        model = cpu_model(replace(calibrated, tables=tables), plan)
        rows.append(method_record(plan.method, tables.images, decision.compare(model)))
    return tuple(rows)
