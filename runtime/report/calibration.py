"""The section of a report on how INT8 was calibrated: methods, and numbers of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finedge.bundle import Bundle
from finedge.provenance import DecisionRecord, MethodRecord
from finedge.schema import Text

COLUMNS = ("method", "calibrated with", "KL, nats", "same top-1 %", "top-1 %", "of images")


@dataclass(frozen=True)
class CalibrationSection:
    """What report.json keeps of a bundle's calibration.

    Attributes:
        method: the collector of the ranges.
        decision: the methods that were compared on other training images.
    """

    method: Text
    decision: DecisionRecord


@dataclass(frozen=True)
class DecisionTable:
    """A heading with a reason, and rows of cells for `COLUMNS`."""

    heading: str
    reason: str
    rows: tuple[tuple[str, ...], ...]


def calibration_sections(bundles: Mapping[str, Bundle]) -> dict[str, Any]:
    """Return the section of each bundle whose calibration compared something, as plain data."""
    records = {name: bundle.calibration for name, bundle in bundles.items()}
    return {
        name: asdict(CalibrationSection(record.method, record.decision))
        for name, record in records.items()
        if record.decision.methods
    }


def decision_tables(report: Mapping[str, Any]) -> tuple[DecisionTable, ...]:
    """Return the table of methods of each bundle, and that of its curve where there is one."""
    tables = []
    for bundle, section in report.get("calibration", {}).items():
        decision = section["decision"]
        heading = f"How INT8 was calibrated: {bundle}"
        tables.append(DecisionTable(heading, decision["reason"], _rows(decision["methods"])))
        if decision["curve"]:
            heading = f"How many images it needs: {bundle}"
            reason = f"method {section['method']}, on the images that decided"
            tables.append(DecisionTable(heading, reason, _rows(decision["curve"])))
    return tuple(tables)


def _rows(records: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    return tuple(_cells(MethodRecord(**record)) for record in records)


def _cells(row: MethodRecord) -> tuple[str, ...]:
    shares: Sequence[str] = [f"{100 * share:.1f}" for share in (row.agreement, row.top1)]
    return row.method, str(row.images), f"{row.kl:.5f}", *shares, str(row.n)
