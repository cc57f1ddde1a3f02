"""The one logger that a process gives TensorRT.

The library keeps the first logger that it gets and ignores later ones, so only its sinks change.
It has no severity filter: every message is a call into Python under the GIL. A call costs 0.9 us
where it returns at once, 1.6 us where it keeps the text (measured on a server's CPU). So the 10^6
messages of a long build cost one or two seconds. `trt.Logger` filters without Python (0.3 us), but
prints on stdout, where the JSON result belongs.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

# On a machine without a driver the library adds this line to unrelated errors.
NOISE = "catchCudaError"

OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|could not be allocated", re.IGNORECASE)
KEPT = 300  # messages, and errors; full TensorRT logs 10^5 to 10^6 verbose messages in a build
VERBOSE = 4

Sink = Callable[[int, str], None]


class Messages(deque[str]):
    """The last messages of a block in order; `errors` are the last ones of severity error.

    Args:
        everything: keep every message, the verbose ones too. The `Layers:` list of TensorRT for RTX
            is one of them; it logs 6 500 messages, 0.4 MB, for the demo's bundle.
    """

    def __init__(self, *, everything: bool = False) -> None:
        super().__init__(maxlen=None if everything else KEPT)
        self.lowest = VERBOSE if everything else VERBOSE - 1
        self.errors: deque[str] = deque(maxlen=KEPT)

    def collect(self, severity: int, text: str) -> None:
        """Take a message of the library."""
        if severity > self.lowest:
            return
        self.append(text)
        if severity <= 1 and NOISE not in text:
            self.errors.append(text)

    @property
    def out_of_memory(self) -> bool:
        """Whether an error says that memory is short, of the GPU or of the host."""
        return any(OUT_OF_MEMORY.search(text) for text in self.errors)


@functools.cache
def logger(trt: Any) -> Any:
    """Return the process's ILogger for this library.

    The last of its `sinks` takes (severity 0..4, text); 0 and 1 are errors.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.sinks: list[Sink] = [_to_python]

        def log(self, severity: Any, message: str) -> None:
            self.sinks[-1](int(severity), message)

    return Logger()


@contextmanager
def collected(trt: Any, *, everything: bool = False) -> Iterator[Messages]:
    """Collect what the library logs inside the block; collections nest.

    `everything` keeps all messages, the verbose ones too.
    """
    messages = Messages(everything=everything)
    with _sink(trt, messages.collect):
        yield messages


@contextmanager
def reported(trt: Any) -> Iterator[Messages]:
    """Collect errors for the text of an exception, as `collected` does.

    Everything else reaches the log at once, and the errors too where the block raises nothing.
    """
    messages, below = Messages(), logger(trt).sinks[-1]

    def sort(severity: int, text: str) -> None:
        (messages.collect if severity <= 1 else below)(severity, text)

    with _sink(trt, sort):
        yield messages
    for text in messages.errors:
        below(1, text)


@contextmanager
def _sink(trt: Any, sink: Sink) -> Iterator[None]:
    """Let a sink take what the library logs; blocks of two threads may end in any order."""
    sinks = logger(trt).sinks
    sinks.append(sink)
    try:
        yield
    finally:
        sinks.remove(sink)


def without_noise(text: str) -> str:
    """Return the text without the lines that only report a missing driver."""
    return "\n".join(line for line in text.splitlines() if NOISE not in line).strip()


def _to_python(severity: int, text: str) -> None:
    """Outside of a collection: errors and warnings go to the package's log, the rest is detail."""
    level = {0: logging.ERROR, 1: logging.ERROR, 2: logging.WARNING}.get(severity, logging.DEBUG)
    log.log(level, "%s", text)
