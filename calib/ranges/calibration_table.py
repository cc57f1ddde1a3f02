"""The calibration table: the range of each tensor, from which Q/DQ nodes get their scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finedge.errors import FinedgeError, UsageError, nearest

INT8_MAX = 127  # -128 is not used: symmetric


@dataclass(frozen=True)
class Range:
    """The values that a tensor takes, low <= high, in the tensor's own unit.

    A collector may have left outliers out.
    """

    low: float
    high: float

    @property
    def amax(self) -> float:
        """The larger of |low| and |high|."""
        return max(abs(self.low), abs(self.high))

    @property
    def scale(self) -> float:
        """The step of symmetric signed INT8, > 0; a tensor that is always 0 gets step 1."""
        return self.amax / INT8_MAX or 1.0


@dataclass(frozen=True)
class CalibrationTable:
    """Ranges by tensor name of the float ONNX file: every INT8 file is written from one table."""

    method: str
    ranges: Mapping[str, Range]

    def __getitem__(self, tensor: str) -> Range:
        if tensor not in self.ranges:
            raise FinedgeError(
                f"tensor '{tensor}' was not calibrated",
                expected="a float tensor of the model, not inside attention",
                fix="calibrate with this very model",
            )
        return self.ranges[tensor]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the provenance record: {tensor: [low, high]}."""
        return {name: [r.low, r.high] for name, r in self.ranges.items()}


@dataclass(frozen=True)
class CalibrationTables:
    """The tables of several methods, from one pass over the same images.

    Attributes:
        tables: the table of each method.
        images: how many images the pass saw.
    """

    tables: Mapping[str, CalibrationTable]
    images: int

    def __getitem__(self, method: str) -> CalibrationTable:
        if method not in self.tables:
            raise UsageError(
                f"the calibration has no table of method '{method}'",
                expected=nearest(method, self.tables),
            )
        return self.tables[method]
