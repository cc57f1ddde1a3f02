"""What a part of the GPU run is: a name, a time limit, and a module with `rows(request)`."""

from __future__ import annotations

import argparse
import importlib
import json
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.carried import Carried
from benchmarks.gpu.device import LIBRARY
from benchmarks.gpu.results import Row

__all__ = ["Part", "Request", "Row", "Skip", "run_part"]


class Skip(Exception):
    """A part cannot run on this machine; the text says why. It is no error."""


@dataclass(frozen=True)
class Request:
    """What the caller asked for, as each part sees it.

    Attributes:
        out: folder of the results; a part may leave a file of its own in it.
        deadline: when the part must have ended, by `time.monotonic`.
        small: tiny sizes, for a dry run.
        library: the CUDA driver; a stand-in for it on a machine without a GPU.
        carried: what was made for this machine beforehand.
    """

    out: Path
    deadline: float
    small: bool = False
    library: str = LIBRARY
    carried: Carried = field(default_factory=Carried)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Request:
        """Read the arguments of `all.py`."""
        return cls(
            arguments.out,
            time.monotonic() + arguments.seconds,
            small=arguments.small,
            library=arguments.library,
            carried=Carried(arguments.carried),
        )

    @property
    def seconds_left(self) -> float:
        """The time until the deadline."""
        return self.deadline - time.monotonic()


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


def run_part(name: str, arguments: argparse.Namespace) -> None:
    """Print the rows of a part and its status, one JSON object a line."""
    request = Request.of(arguments)
    status: Row = {"status": "done"}
    try:
        module = importlib.import_module(f"benchmarks.gpu.parts.{name}")
        for row in module.rows(request):
            print(json.dumps(row), flush=True)
            if request.seconds_left < 0:
                status = {"status": "stopped", "reason": f"{arguments.seconds:.0f} s"}
                break
    except Skip as reason:
        status = {"status": "skipped", "reason": str(reason)}
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
        words = f"{type(error).__name__}: {str(error)[:500]}"
        status = {"status": "failed", "reason": words}
    print(json.dumps(status), flush=True)
