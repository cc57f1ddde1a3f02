"""The line of an event as a store keeps it: a file from elsewhere may hold anything."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from finedge.document import parse_json
from finedge.errors import DataError
from finedge.schema import Constraint, Count, Misfit, Share, decode
from finedge.wall_time import parse_time


def _is_time(text: str) -> bool:
    with suppress(ValueError, OverflowError, OSError):
        return parse_time(text).tzinfo is not None
    return False


Time = Annotated[str, Constraint(_is_time, "a time with a zone")]


@dataclass(frozen=True)
class _Name:
    label: str
    p: Share


@dataclass(frozen=True)
class _Event:
    """What readers of a store use of an event's line (`finedge.runtime.events.event`)."""

    id: str
    source: str
    track: Count
    started_at: Time
    ended_at: Time
    seconds: float
    frames: Count
    status: str
    label: str
    answer: _Name | None
    coarser: _Name | None
    kind: str
    zone: str
    clip: str | None


def read_record(text: object, *, path: Path) -> dict[str, Any]:
    """Return the line of an event as plain data, checked.

    Raises:
        DataError: the store is damaged.
    """
    fix = "FINEDGE_LOG=DEBUG shows where"
    record = parse_json(str(text), name=str(path), error=DataError, fix=fix)
    try:
        decode(_Event, record)
    except Misfit as misfit:
        raise DataError(
            f"{path} is damaged: of an event {misfit}", expected=misfit.expected
        ) from misfit
    checked: dict[str, Any] = record
    return checked
