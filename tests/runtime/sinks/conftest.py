"""Results as `classify` makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from finedge.runtime.sinks import Result

MakeResult = Callable[..., Result]


@pytest.fixture
def make_result() -> MakeResult:
    """Make a result: `make_result(3, p=0.4)` is frame 3 of a source with 25 frames a second.

    `stream` is the number of the source. `p=None` is a silence.
    """

    def make(
        frame: int = 0,
        *,
        p: float | None = 0.9,
        label: str = "red",
        size: tuple[int, int] = (48, 64),
        stream: int = 0,
        seconds: float | None = None,
        **changes: Any,
    ) -> Result:
        record = {
            "schema": 1,
            "source": f"cam{stream}",
            "frame": frame,
            "captured_at": f"2026-01-02T03:04:{frame // 25 % 60:02d}.{frame % 25 * 40:03d}Z",
            "age_ms": 12.5,
            "status": "ok",
            "top": [{"index": 4, "label": label, "p": p}],
            "ms": {"decode": 1.0, "preprocess": 1.0, "infer": 1.0, "post": 1.0},
            "variant": "fp32",
            "backend": "fake",
            "file": "model.fp32.onnx",
        }
        if p is None:
            nothing = {"frame": None, "captured_at": None, "age_ms": None, "top": []}
            return Result({**record, **nothing, "status": "no_signal"}, stream=stream)
        image = np.random.default_rng(frame).integers(0, 256, (*size, 3), dtype=np.uint8)
        abstained = changes.pop("unknown", False)
        at = frame / 25 if seconds is None else seconds
        return Result(record | changes, image, stream, at, model_p=p, abstained=abstained)

    return make
