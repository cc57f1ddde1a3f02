"""What a sink is: where results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.classifier import Classifier
from finedge.runtime.events.event import Event

if TYPE_CHECKING:
    from finedge.runtime.events.notice import Counts  # it reads results, as sinks do


@dataclass(frozen=True)
class Result:
    """What became of one frame, or of a silence.

    Attributes:
        record: the classify line: plain data, not to be changed. With a finder, the line of the
            frame's first thing, or of an idle frame.
        image: the whole frame, uint8 [H, W, 3] RGB, not to be changed; None for `no_signal`.
        stream: which source of the command line, from 0.
        seconds: the frame's time on its source's own clock; None for photos, which have none.
        model_p: the model's top probability for this frame alone, before smoothing and holding;
            None for `no_signal`.
        abstained: `model_p` is below the bundle's threshold.
        things: with a finder, the lines of all things in the frame, `record` first; empty for an
            idle frame. None without a finder.
        is_quiet: an idle frame whose line is left out, because one was printed a moment ago.
        events: what began or ended with this frame, for the sinks of events.
    """

    record: dict[str, Any]
    image: NDArray[np.uint8] | None = None
    stream: int = 0
    seconds: float | None = None
    model_p: float | None = None
    abstained: bool = False
    things: tuple[dict[str, Any], ...] | None = None
    is_quiet: bool = False
    events: tuple[Event, ...] = ()

    @property
    def lines(self) -> tuple[dict[str, Any], ...]:
        """The lines to print: one without a finder, else one for each thing."""
        return () if self.is_quiet else self.things or (self.record,)


class Sink(Protocol):
    """Takes results one after another, from one thread.

    `write` returns soon. `close` is called once.
    """

    def write(self, result: Result) -> None:
        """Take the next result."""

    def close(self) -> None:
        """Write what is left and end."""


@dataclass(frozen=True)
class Outputs:
    """Where results go besides stdout.

    Attributes:
        save: write an annotated video to this .mp4 or .avi (one for each source).
        show: show the frames with their labels in a window; q or Esc closes it and ends the run.
        collect: keep frames that the model was unsure of in this folder, as
            DIR/LABEL/TIME-FRAME.jpg: sort them, then train again. With --find, the best crop of
            each unsure visit.
        collect_below: a frame or a visit is unsure if its top probability is below this.
        collect_max_mib: the size of all frames kept there, those of earlier runs too. The oldest
            are removed first; other files stay.
        serve: show a live page at this address, e.g. 127.0.0.1:8080.
        token: a password for the page. Without it, any address but this machine's own gets a
            random one, which is logged. FINEDGE_TOKEN in the environment does the same and does
            not show in the process list.
        events: print a line for each visit that starts or ends, in place of a line for each frame;
            with --find.
    """

    save: Path | None = None
    show: bool = False
    collect: Path | None = None
    collect_below: float = 0.5
    collect_max_mib: float = 1024.0
    serve: str | None = None
    token: str | None = None
    events: bool = False


@dataclass(frozen=True)
class Context:
    """What a sink may know of the run.

    Attributes:
        title: the bundle's name.
        names: each source's name.
        fps: each source's frame rate, None where it is unknown.
        live: whether any source is live.
        stop: ends the run.
        quiet_s: a healthy run gives a result at least this often.
        classifier: what runs, for a sink that answers more than frames; any thread may call it.
        store: the file that keeps visits, for a sink that shows those of earlier runs.
        page: the address of the live page, for a sink of events that it serves.
        reports: says what became of the events, by sink.
        metrics: the counts for Prometheus.
        finds: whether a finder runs: results then have things, and things have visits.
    """

    title: str
    names: tuple[str, ...]
    fps: tuple[float | None, ...]
    live: bool
    stop: Callable[[], None]
    quiet_s: float = 0.0
    classifier: Classifier | None = None
    store: Path | None = None
    page: str | None = None
    reports: Callable[[], Mapping[str, Counts]] = dict
    metrics: Callable[[], bytes] | None = None
    finds: bool = False
