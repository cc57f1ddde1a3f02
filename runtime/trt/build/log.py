"""The one logger that a process gives TensorRT.

The library keeps the first logger that it gets and ignores later ones, so only its sink changes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

# On a machine without a driver the library adds this line to unrelated errors.
NOISE = "catchCudaError"

Sink = Callable[[int, str], None]


class Messages(list[str]):
    """Every message of a build in order; `errors` are those of severity error.

    The `Layers:` list of the verbose log is among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []


@functools.cache
def logger(trt: Any) -> Any:
    """Return the process's ILogger for this library.

    Its attribute `sink` takes (severity 0..4, text); 0 and 1 are errors.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        sink: Sink = staticmethod(_to_python)

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            self.sink(int(severity), message)

    return Logger()


@contextmanager
def collected(trt: Any) -> Iterator[Messages]:
    """Collect what the library logs inside the block, with verbose messages; collections nest."""
    messages = Messages()

    def collect(severity: int, text: str) -> None:
        messages.append(text)
        if severity <= 1 and NOISE not in text:
            messages.errors.append(text)

    process_logger = logger(trt)
    previous, process_logger.sink = process_logger.sink, collect
    try:
        yield messages
    finally:
        process_logger.sink = previous


def without_noise(text: str) -> str:
    """Return the text without the lines that only report a missing driver."""
    return "\n".join(line for line in text.splitlines() if NOISE not in line).strip()


def _to_python(severity: int, text: str) -> None:
    """Outside of a collection: errors and warnings go to the package's log, the rest is detail."""
    level = {0: logging.ERROR, 1: logging.ERROR, 2: logging.WARNING}.get(severity, logging.DEBUG)
    log.log(level, "%s", text)
