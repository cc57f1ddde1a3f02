"""The modes of a benchmark: when the next query is made."""

from __future__ import annotations

from dataclasses import dataclass

from finedge.errors import UsageError
from finedge.options import comma_list

SINGLE_STREAM = "single-stream"  # the next frame after the last answer
OFFLINE = "offline"  # whole batches, one after another
CAMERA = "camera"  # frames come by themselves: see camera.py
MODES = (SINGLE_STREAM, OFFLINE, CAMERA)


@dataclass(frozen=True)
class Mode:
    """How a query is made: `batch` frames at once."""

    name: str
    batch: int


def parse_modes(names: str, *, batch: int) -> tuple[Mode, ...]:
    """Return the modes of a comma list; `batch` is that of offline.

    Raises:
        UsageError: an unknown mode, none, or a batch below 1.
    """
    if batch < 1:
        raise UsageError(f"--batch {batch}", expected="at least 1")
    chosen = comma_list(names, kind="mode", known=MODES)
    if not chosen:
        raise UsageError("no mode was given", expected=f"one or more of {', '.join(MODES)}")
    return tuple(Mode(name, batch if name == OFFLINE else 1) for name in chosen)
