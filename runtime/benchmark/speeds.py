"""Whether INT8 is faster than float in a benchmark: the blocks of both are compared in pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from finedge.errors import FinedgeError
from finedge.runtime.benchmark.lane import TOTAL, BenchmarkLane
from finedge.runtime.benchmark.modes import CAMERA
from finedge.runtime.early_exit.record import titled
from finedge.runtime.variant.islands import float_islands
from finedge.runtime.variant.rule import Verdict
from finedge.runtime.variant.speed import MIN_BLOCKS, paired_speed

NOT_FASTER = "INT8 is not shown to be faster end to end"


def int8_verdicts(lanes: Sequence[BenchmarkLane]) -> Mapping[str, Sequence[Verdict]]:
    """Return the verdict on INT8 against each float variant, by bundle and mode.

    Camera mode is left out: its times do not hold the waiting between frames.
    """
    asked = [lane for lane in lanes if lane.mode.name != CAMERA]
    return {
        f"{titled(lane.bundle, lane.key.early_exit)} {lane.mode.name}": [
            _verdict(lane, other)
            for other in asked
            if (other.key.contender, other.mode) == (lane.key.contender, lane.mode)
            and other is not lane
        ]
        for lane in asked
        if lane.classifier.variant == "int8"
    }


def check_faster(verdicts: Mapping[str, Sequence[Verdict]], result: dict[str, Any]) -> None:
    """Raise where INT8 is not faster than every float variant, beyond noise.

    The error still prints `result`.

    Raises:
        FinedgeError: it is not, or no INT8 row has a float row beside it.
    """
    reasons = [
        f"  {name}: {verdict.reason}"
        for name, of_row in verdicts.items()
        for verdict in of_row
        if not verdict.is_faster
    ]
    if not any(verdicts.values()):
        reasons = ["  no mode has both an INT8 row and a float row"]
    if reasons:
        raise FinedgeError(
            "\n".join([f"{NOT_FASTER}:", *reasons]),
            expected=f"faster beyond noise, in {MIN_BLOCKS} blocks of 0.7 s or more",
            fix="measure longer (--duration), or run a float variant",
            result=result,
        )


def _verdict(lane: BenchmarkLane, other: BenchmarkLane) -> Verdict:
    speed = paired_speed(_block_medians(other), _block_medians(lane))
    classifier = lane.classifier
    islands = float_islands(classifier.bundle, classifier.session.info)
    return Verdict("int8", other.classifier.variant, speed, None, islands)


def _block_medians(lane: BenchmarkLane) -> list[float]:
    """Return the median time of each block in milliseconds."""
    samples, starts = lane.times[TOTAL], [*lane.blocks, None]
    return [statistics.median(samples[first:last]) for first, last in pairwise(starts)]
