"""The fields of report.json that `finedge report` reads, with types and ranges.

`finedge.runtime.benchmark.rows.BenchmarkRow` writes the rows. Fields of later versions may be
missing in older reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from finedge.document import read_json
from finedge.errors import DataError
from finedge.runtime.report.calibration import CalibrationSection
from finedge.runtime.report.change import Change95, Difference
from finedge.runtime.report.exits import EarlyExitSection, FittedSection, Milliseconds
from finedge.schema import Constraint, Count, Misfit, Share, Text, at_most, between, decode

SCHEMA = 1
AGAIN = "finedge benchmark BUNDLE --data DIR writes it again"
Name = Annotated[Text, Constraint(lambda text: bool(text.strip()), "a name that is not empty")]
# The report divides by it and takes its logarithm.
Latency = Annotated[float, between(1e-6, 1e9, unit="ms")]
Amount = Annotated[float, between(0, 1e12)]


@dataclass(frozen=True)
class StageMedians:
    """Medians of the stages of a query, in ms."""

    decode: Milliseconds | None = None
    preprocess: Milliseconds | None = None
    infer: Milliseconds | None = None
    post: Milliseconds | None = None


@dataclass(frozen=True)
class PowerSection:
    """The mean power in W, and what measured it."""

    mean_w: Amount | None = None
    sensor: Text | None = None


@dataclass(frozen=True)
class PeakSection:
    """Multiply-accumulates a second of an INT8 row, in 10^9, and their share of the CPU's peak."""

    gmacs_per_s: Amount
    share: Amount


@dataclass(frozen=True)
class CameraSection:
    """Ages in ms and rates of a row in camera mode.

    `core_share` is CPU time of the process over wall time. `find` names the finder of a row that
    has one; `idle` frames had nothing in them.
    """

    source: Text
    fps_offered: Amount | None
    fps_answered: Amount | None
    offered: Count
    dropped: Annotated[int, between(-(10**12), 10**12)]
    age_p50_ms: Milliseconds | None
    age_p95_ms: Milliseconds | None
    age_p99_ms: Milliseconds | None
    answered: Count = 0
    core_share: Amount | None = None
    find: Text | None = None
    find_p50_ms: Milliseconds | None = None
    find_p95_ms: Milliseconds | None = None
    idle: Count = 0


@dataclass(frozen=True, kw_only=True)
class ReportRow(Change95):
    """One row."""

    bundle: Name
    variant: Name
    file: Text
    file_bytes: Count
    backend: Text
    device: Text
    batch: Count
    mode: Name
    n: Count
    p50_ms: Latency | None
    p90_ms: Milliseconds | None
    p95_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    engine_p50_ms: Milliseconds | None
    stages_p50_ms: StageMedians
    images_per_second: Amount
    top1: Share | None
    top5: Share | None
    wilson95: tuple[Share, Share] | None
    accuracy_n: Count
    accuracy_note: Text
    flips: Count | None = None
    clocks: Mapping[Text, Any]
    power_mode: Text = "unknown"
    power: PowerSection = PowerSection()
    energy_mj: Amount | None = None
    throttled: bool | Text
    valid: bool
    invalid_reasons: Annotated[tuple[Text, ...], at_most(1_000)]
    camera: CameraSection | None = None
    int8_peak: PeakSection | None = None
    mean_ms: Latency | None = None
    early_exit: EarlyExitSection | None = None
    looks: Annotated[int, between(1, 2)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.top1 is None) != (self.wilson95 is None):
            raise DataError("only one of top1 and wilson95", expected="both or none")
        if self.mode == "camera" and self.camera is None:
            raise DataError("a row of camera mode without ages", expected="camera")
        if self.energy_mj is not None and self.power.sensor is None:
            raise DataError("energy without its sensor", expected="power.sensor")


@dataclass(frozen=True, kw_only=True)
class Comparison(Change95):
    """Two bundles on the same images; the change is known.

    With `early_exit` the second one ran with early exits.
    """

    first: Name
    second: Name
    variant: Name
    p50_ms: tuple[Latency | None, Latency | None]
    mean_ms: tuple[Latency | None, Latency | None] = (None, None)
    early_exit: bool = False
    top1_change: Difference


@dataclass(frozen=True)
class ClassChange:
    """One class of a bundle."""

    label: Text
    n: Count
    top1: Annotated[Mapping[Name, Share], at_most(100)]
    change: Difference | None = None
    flips: Count | None = None
    mcnemar_p: Share | None = None


@dataclass(frozen=True)
class Reliability:
    """How far the probabilities of a variant can be trusted.

    Attributes:
        ece: the expected calibration error of the probabilities that users see.
        ece_uncalibrated: the same at temperature 1.
        bins: the number of answers, their mean probability, and the share that is right.
    """

    ece: Share
    ece_uncalibrated: Share
    bins: Annotated[tuple[tuple[Count, Share, Share], ...], at_most(100)]


@dataclass(frozen=True)
class ChoiceSection:
    """The variant that `auto` ran on the machine of the benchmark, and why."""

    variant: Name
    reason: Text


@dataclass(frozen=True)
class MethodSection:
    """How it was measured."""

    frames: Count
    frames_from: Text
    block_s: Amount
    duration_s: Amount
    warm_up_s: Amount
    rewarm_s: Amount
    threads: Count | None = None
    gate: Share | None = None


@dataclass(frozen=True)
class Report:
    """A whole report."""

    schema: Literal[1]
    made: Name
    environment: Mapping[Text, Any]
    method: MethodSection
    rows: Annotated[tuple[ReportRow, ...], Constraint(bool, "rows"), at_most(500)]
    comparisons: Annotated[tuple[Comparison, ...], at_most(5_000)] = ()
    per_class: Annotated[Mapping[Name, tuple[ClassChange, ...]], at_most(500)] = field(
        default_factory=dict
    )
    choices: Annotated[Mapping[Name, ChoiceSection], at_most(500)] = field(default_factory=dict)
    reliability: Annotated[Mapping[Name, Mapping[Name, Reliability]], at_most(500)] = field(
        default_factory=dict
    )
    calibration: Annotated[Mapping[Name, CalibrationSection], at_most(500)] = field(
        default_factory=dict
    )
    exits: Annotated[Mapping[Name, FittedSection], at_most(500)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for classes in self.per_class.values():
            compared = [c for c in classes if c.change is not None]
            if any(set(c.top1) != set(compared[0].top1) for c in compared):
                raise DataError(
                    "classes with different variants",
                    expected="the same variants in each class of a bundle",
                )


def read_report(path: Path) -> dict[str, Any]:
    """Return the content of a report.json as plain data, every value checked.

    Raises:
        DataError: there is none, it is damaged, or another version wrote it.
    """
    try:
        data = read_json(path, error=DataError, fix=AGAIN)
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}",
            expected="a bundle that was benchmarked",
            fix="finedge benchmark BUNDLE --data DIR",
        ) from None
    schema = data.get("schema") if isinstance(data, Mapping) else "?"
    if schema != SCHEMA or isinstance(schema, bool):
        raise DataError(
            f"{path} has schema {schema!s:.60}",
            expected=str(SCHEMA),
            fix="update finedge, or benchmark again",
        )
    try:
        return asdict(decode(Report, data))
    except Misfit as error:
        raise DataError(
            f"{path} is damaged: {error}",
            expected=error.expected,
            fix=AGAIN,
        ) from error
