"""What a part of the GPU run is: a name, a time limit, and a function that yields rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.device import LIBRARY

Row = Mapping[str, Any]  # plain data; one line of the results file


class Skip(Exception):  # noqa: N818 - not an error: the reason why a part does not run here
    """A part cannot run on this machine; the text says why."""


@dataclass(frozen=True)
class Request:
    """What the caller asked for, as each part sees it.

    Attributes:
        out: folder of the results; a part may leave a file of its own in it.
        deadline: when the part must have ended, by `time.monotonic`.
        small: tiny sizes, for a dry run.
        library: the CUDA driver; a stand-in for it on a machine without a GPU.
        data: images to train on (train/CLASS, test/CLASS), if any.
        bindings: folder with TensorRT's Python bindings and a registry-only libnvinfer, if any.
    """

    out: Path
    deadline: float
    small: bool = False
    library: str = LIBRARY
    data: Path | None = None
    bindings: Path | None = None

    @property
    def seconds_left(self) -> float:
        """The time until the deadline."""
        return self.deadline - time.monotonic()


Rows = Callable[[Request], Iterator[Row]]


@dataclass(frozen=True)
class Part:
    """One part of the run.

    Attributes:
        name: of the part and of its module in `benchmarks.gpu.parts`.
        seconds: its time limit.
        beside_next: the next part may start beside it: nothing in either is timed.
    """

    name: str
    seconds: float
    beside_next: bool = False
