"""What makes a measured accuracy doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS = {
    "overlap": "{} images were trained on too: this accuracy is too high",
    "calibrated": "{} images calibrated this INT8 variant",
    "new": "{} images are not in the stored split",
}


def doubts(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each doubt; `data` is the record of an `EvaluationSplit`."""
    return tuple(text.format(data[key]) for key, text in COUNTS.items() if data.get(key))
