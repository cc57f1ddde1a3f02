"""What a source is: something that yields frames, each with the moment it was captured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    `index` counts from 0 in the order of the source (a gap means that frames were dropped), `captured_ns` is `time.monotonic_ns()` of
    the capture (of the read, for files), `image` is uint8 [H, W, 3] RGB, `name` the file or device, `decode_ms` what reading and decoding took.
    """

    index: int
    captured_ns: int
    image: NDArray[np.uint8]
    name: str
    decode_ms: float


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its first frame; `frames` is what a file announces, which may be wrong."""

    kind: str
    uri: str
    frames: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None


class Source(Protocol):
    """An open source: iterate it once, and leave its `with` block to release the device.

    A `live` source produces frames whether or not they are wanted, so only its newest frame counts; it ends by raising `SourceLost`.
    Of any other source every frame counts.
    """

    live: bool
    info: SourceInfo

    def __iter__(self) -> Iterator[Frame]: ...

    def __enter__(self) -> Source: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
