"""A real browser, and results to feed the page with."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.browser import Browser
from finedge.runtime.events.event import Event, Kind, Name
from finedge.runtime.find.box import Box
from finedge.runtime.sinks.base import Result
from tests.chromium import CHROMIUM

HAS_EXTRA = importlib.util.find_spec("uvicorn") is not None
collect_ignore_glob = [] if HAS_EXTRA else ["test_*.py"]
if HAS_EXTRA:
    from finedge.runtime.sinks.live.page import LivePage


def made_result(
    index: int = 0,
    *,
    source: str = "test://",
    status: str = "ok",
    stream: int = 0,
    labels: tuple[str, ...] = ("a bird", "a plane"),
    size: tuple[int, int] = (48, 64),
) -> Result:
    """A line as `finedge classify` writes it, with its picture."""
    has_frame = status != "no_signal"
    stages = {"decode": 2.0, "preprocess": 1.0, "infer": 20.0 + index % 7, "post": 0.1}
    record: dict[str, Any] = {
        "schema": 1,
        "source": source,
        "frame": index if has_frame else None,
        "captured_at": "2026-01-01T00:00:00.000Z" if has_frame else None,
        "age_ms": 40.0 if has_frame else None,
        "status": status,
        "top": [{"index": i, "label": label, "p": 0.8 / 4**i} for i, label in enumerate(labels)]
        if has_frame
        else [],
        "ms": stages if has_frame else dict.fromkeys(stages),
        "variant": "int8",
        "backend": "onnxruntime",
        "file": "model.int8.cpu.onnx",
    }
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Result(record, image if has_frame else None, stream)


def made_event(
    number: int = 0,
    *,
    kind: Kind = "ended",
    label: str = "a bird",
    stream: int = 0,
    started_at: float | None = None,
    crop: NDArray[np.uint8] | None = None,
    known: bool = True,
) -> Event:
    """The start or the end of a visit. Visits follow one another in seconds, the last one now."""
    begin = time.time() - 60 + number if started_at is None else started_at
    pixels = np.random.default_rng(number).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    return Event(
        id=f"visit/{number}",
        kind=kind,
        source=f"camera {stream}",
        stream=stream,
        track=number,
        started_at=begin,
        ended_at=begin + 4,
        seconds=4.0,
        frames=40,
        answer=Name(label, 0.8, 0) if known else None,
        coarser=None if known else Name(label, 0.9),
        top=(Name(label, 0.8, 0), Name("a plane", 0.2, 1)),
        box=Box(1, 2, 48, 64, zone="feeder"),
        crop=pixels if crop is None else crop,
        clip=Path("/home/me/clip.mp4"),
    )


@pytest.fixture
def event() -> Callable[..., Event]:
    return made_event


@pytest.fixture
def result() -> Callable[..., Result]:
    return made_result


@pytest.fixture
def serve() -> Iterator[Callable[..., LivePage]]:
    """Open live pages on a port that the system chooses; closed after the test."""
    opened: list[LivePage] = []

    def open_page(address: str = "127.0.0.1:0", **options: Any) -> LivePage:
        opened.append(LivePage(address, **options))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian package: chromium)")
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.look()
    chromium.requests.clear()
    chromium.complaints.clear()
    yield chromium
    chromium.call("Page.navigate", url="about:blank")
