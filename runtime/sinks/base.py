"""What a sink is: where results go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.classifier import Prediction


@dataclass(frozen=True)
class Result:
    """What became of one frame, or of a silence.

    Attributes:
        record: the classify line: plain data, not to be changed.
        image: the whole frame, uint8 [H, W, 3] RGB, not to be changed; None for `no_signal`.
        prediction: what the model itself said of this frame, before smoothing and holding.
        stream: which source of the command line, from 0.
        seconds: the frame's time on its source's own clock; None where frames have none (photos).
    """

    record: dict[str, Any]
    image: NDArray[np.uint8] | None = None
    prediction: Prediction | None = None
    stream: int = 0
    seconds: float | None = None


class Sink(Protocol):
    """Takes results one after another, from one thread. `write` returns soon; `close` is called once."""

    def write(self, result: Result) -> None:
        """Take the next result."""

    def close(self) -> None:
        """Write what is left and end."""


@dataclass(frozen=True)
class Outputs:
    """Where results go besides stdout.

    Attributes:
        save: write an annotated video to this .mp4 or .avi (one a source).
        show: show the frames with their labels in a window; q or Esc closes it and ends the run.
        collect: keep frames that the model was unsure of in this folder, as DIR/LABEL/TIME-FRAME.jpg: sort them, train again.
        collect_below: unsure is a top probability below this.
        collect_max_mib: the size of all frames kept there, those of earlier runs too; past it the oldest are removed. Other files stay.
        serve: show a live page at this address, e.g. 127.0.0.1:8080.
        token: what a browser must know to see the page, for any address but this machine's own. FINEDGE_TOKEN in the environment is the same
            without showing it to everybody on the machine.
    """

    save: Path | None = None
    show: bool = False
    collect: Path | None = None
    collect_below: float = 0.5
    collect_max_mib: float = 1024.0
    serve: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Context:
    """What a sink may know of the run: the bundle's name, each source's name and frame rate, whether any is live, how to end it.

    A run in good health gives no result for at most `quiet_s`.
    """

    title: str
    names: tuple[str, ...]
    fps: tuple[float | None, ...]
    live: bool
    stop: Callable[[], None]
    quiet_s: float = 0.0
