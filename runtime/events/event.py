"""The start or the end of a visit.

The line of an event is an interface, as the line of a frame is: `SCHEMA` says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box
from finedge.wall_time import time_text

SCHEMA = 1
Kind = Literal["started", "ended"]


@dataclass(frozen=True)
class Name:
    """An answer: a class of the model, or a group of classes in the label tree.

    Attributes:
        label: of the class or the group.
        p: its probability, pooled over the visit.
        index: of the class; None for a group.
    """

    label: str
    p: float
    index: int | None = None


@dataclass(frozen=True)
class Event:
    """What became of a visit so far.

    Attributes:
        id: unique among all runs, and the same at the start and at the end of a visit.
        kind: started, or ended.
        source: the name of the source.
        stream: which source of the command line, from 0.
        track: the number of the visit's track in this run.
        started_at: the wall time of its first frame, s since 1970 (UTC).
        ended_at: of its last frame so far.
        seconds: its length on the source's own clock, which a change of the wall clock does not
            move.
        frames: how many of its frames were classified.
        answer: the class, or None where it stays unknown.
        coarser: the deepest group that is sure, where the class is not; None without a label tree.
        top: the most probable classes, pooled over the visit.
        box: where the best crop is in its frame.
        crop: the best crop, uint8 [H, W, 3] RGB, not to be changed.
        clip: a video of the visit, where one is written.
    """

    id: str
    kind: Kind
    source: str
    stream: int
    track: int
    started_at: float
    ended_at: float
    seconds: float
    frames: int
    answer: Name | None
    coarser: Name | None
    top: tuple[Name, ...]
    box: Box
    crop: NDArray[np.uint8]
    clip: Path | None = None

    @property
    def label(self) -> str:
        """What people read: the class, the sure group, or `unknown`."""
        name = self.answer or self.coarser
        return name.label if name else "unknown"

    def record(self) -> dict[str, Any]:
        """Return the event as plain data: its JSON line, without the crop's pixels."""
        return {
            "schema": SCHEMA,
            "event": self.kind,
            "id": self.id,
            "source": self.source,
            "track": self.track,
            "started_at": time_text(self.started_at),
            "ended_at": time_text(self.ended_at),
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
            "status": "ok" if self.answer else "unknown",
            "label": self.label,
            "answer": _plain(self.answer),
            "coarser": _plain(self.coarser),
            "top": [_plain(name) for name in self.top],
            "box": [self.box.x, self.box.y, self.box.w, self.box.h],
            "kind": self.box.kind,
            "zone": self.box.zone,
            "clip": None if self.clip is None else str(self.clip),
        }


class EventSink(Protocol):
    """Takes events one after another, from one thread.

    `write` returns soon: a broker or a disk that hangs never holds up the stream. `close` is called
    once.
    """

    def write(self, event: Event) -> None:
        """Take the next event."""

    def close(self) -> None:
        """Write what is left and end."""


def _plain(name: Name | None) -> dict[str, Any] | None:
    if name is None:
        return None
    return {"label": name.label, "p": round(name.p, 6), "index": name.index}
