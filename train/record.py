"""Readers of run.json and metrics.jsonl: read whole, or refused with the place of the fault.

Only fields that are used later are checked. All others are kept as they are, so that records of
other versions pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from finedge.document import parse_json, read_json, read_text_file
from finedge.errors import DataError, FinedgeError
from finedge.provenance import Path_, TrainingData
from finedge.schema import Constraint, Count, Digest, Misfit, Share, Text, at_most, between, decode
from finedge.spec import Spec
from finedge.train.recipe import MAX_EPOCHS, recipe_from

FORMAT = 1
COPY = "copy the whole folder again"


@dataclass(frozen=True)
class _Model:
    name: Text
    backbone: Text
    weights: Text
    options: Mapping[str, Any]


@dataclass(frozen=True)
class _Teacher:
    path: Path_
    sha256: Digest


@dataclass(frozen=True)
class _Record:
    format: Annotated[int, between(1, FORMAT)]
    spec: Mapping[str, Any]
    model: _Model
    recipe: Mapping[str, Any]
    data: Annotated[TrainingData, Constraint(lambda data: data.root, "the folder of the images")]
    teacher: _Teacher | None = None
    commands: Annotated[tuple[str, ...], at_most(100_000)] = ()


@dataclass(frozen=True)
class _Accuracy:
    top1: Share | None
    top5: Share | None
    n: Count


@dataclass(frozen=True)
class _MetricsRow:
    epoch: Annotated[int, between(1, MAX_EPOCHS)]
    loss: float
    images_per_s: float
    seconds: float
    val_seconds: float
    val: _Accuracy
    profile: Mapping[str, Any] = field(default_factory=dict)


def read_run_json(path: Path) -> dict[str, Any]:
    """Return the record in the file `path`, all of it.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: damaged, of a newer format, or with an invalid spec or recipe.
    """
    record = read_json(path, error=DataError, fix=COPY)
    number = record.get("format") if isinstance(record, dict) else None
    if type(number) is int and number > FORMAT:
        raise DataError(
            f"{path.parent} has format {number}",
            expected=f"at most {FORMAT}",
            fix="update finedge on this machine",
        )
    try:
        decode(_Record, record)
        Spec.from_json(record["spec"])
        recipe_from(record["recipe"])
    except Misfit as error:
        raise DataError(f"{path} is damaged: {error}", expected=error.expected, fix=COPY) from error
    except FinedgeError as error:
        raise DataError(
            f"{path} is damaged: {error.what}",
            expected=error.expected,
            fix=COPY,
        ) from error
    return dict(record)


def read_metrics(path: Path, *, epochs: int) -> list[dict[str, Any]]:
    """Return the rows of the first `epochs` epochs; later rows are left out.

    Raises:
        DataError: the file is missing or damaged, or lacks an epoch.
    """
    try:
        lines = read_text_file(path, error=DataError, fix=COPY).splitlines()
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing",
            expected="a folder made by finedge train",
            fix=COPY,
        ) from None
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:epochs], 1):
        name = f"{path}, line {number}"
        row = parse_json(line, name=name, error=DataError, fix=COPY)
        try:
            decode(_MetricsRow, row)
        except Misfit as error:
            raise DataError(f"{name}: {error}", expected=error.expected, fix=COPY) from error
        rows.append(dict(row))
    if [row["epoch"] for row in rows] != list(range(1, epochs + 1)):
        raise DataError(
            f"{path} has no line for each of {epochs} epochs",
            expected="one line for each epoch",
            fix=COPY,
        )
    return rows
