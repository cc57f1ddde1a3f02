"""The plan of `--max-drop`, or of `--pick`: the one that the files are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finedge.bundle import Bundle
from finedge.calib.decision.damage import with_hard_views
from finedge.calib.int8_files import CalibratedModel
from finedge.calib.options import MIN_IMAGES
from finedge.calib.plan import QuantizationPlan
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.calib.search.options import SearchOptions
from finedge.calib.search.outcome import keep_within
from finedge.calib.sensitivity.measure import units_of
from finedge.confidence import STAGE
from finedge.errors import BundleError, DataError, UsageError
from finedge.schema import Misfit, Text, decode


@dataclass(frozen=True)
class Choice:
    """A plan, and the record of the search that it is of; empty without a search."""

    plan: QuantizationPlan
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _StoredPoint:
    in_float: tuple[Text, ...] = ()


@dataclass(frozen=True)
class _StoredSearch:
    """What `--pick` reads of a search record."""

    points: tuple[_StoredPoint, ...] = ()


def choose_plan(
    bundle: Bundle,
    calibrated: CalibratedModel,
    plan: QuantizationPlan,
    *,
    decision: CalibrationSet | None,
    options: SearchOptions,
) -> Choice:
    """Return `plan` with the layers in float that the options ask for.

    Args:
        bundle: its record may hold the last search.
        calibrated: the float model and its ranges.
        plan: every other choice of the quantization.
        decision: the images to search with.
        options: what the user asked for.

    Raises:
        DataError: there are too few images to search with.
        GateError: the budget cannot be met.
        UsageError: there is no point to pick with this number.
        BundleError: the record of the last search is damaged.
    """
    if options.pick is not None:
        return _picked(bundle, calibrated, plan, number=options.pick)
    if options.max_drop is None:
        return Choice(plan, {})
    if decision is None:
        raise DataError(
            "too few training images to search with",
            expected=f"at least {MIN_IMAGES} besides those that calibrate",
            fix="give --data with more images, or leave --max-drop out",
        )
    images = with_hard_views(decision, calibrated.spec.preprocess)
    outcome = keep_within(calibrated, plan, images=images, max_drop=options.max_drop)
    return Choice(outcome.plan, outcome.to_json())


def _picked(
    bundle: Bundle, calibrated: CalibratedModel, plan: QuantizationPlan, *, number: int
) -> Choice:
    record = bundle.provenance.get(STAGE, {}).get("search", {})
    points = _read(record).points
    if not points:
        raise UsageError(
            f"--pick {number}: {bundle.path} holds no search",
            expected="a bundle that was calibrated with --max-drop",
            fix="finedge calibrate BUNDLE --data DIR --max-drop 1.0",
        )
    if number > len(points):
        raise UsageError(f"--pick {number}", expected=f"a point from 1 to {len(points)}")
    units = units_of(calibrated, plan)
    in_float = points[number - 1].in_float
    if missing := set(in_float) - {unit.name for unit in units.all}:
        raise BundleError(
            f"the model has no layer {min(missing)}, which the last search put into float",
            expected="the model and the method of that search",
            fix="search again with --max-drop",
        )
    keep_float = plan.keep_float | units.nodes_of(in_float)
    return Choice(replace(plan, keep_float=keep_float), {**record, "pick": number})


def _read(record: Mapping[str, Any]) -> _StoredSearch:
    try:
        return decode(_StoredSearch, record, at=f"provenance.{STAGE}.search")
    except Misfit as error:
        raise BundleError(
            str(error), expected=error.expected, fix="search again with --max-drop"
        ) from error
