"""Early exit: a model cut into segments, and the rule by which a frame leaves after one of them.

`finedge export --segments` cuts the graph after local heads. A head is a classifier of its own: its
scores are the exit's answer, unmixed. The gates of Attend and Rectify would weigh the heads, but
they are computed from the last map, which an exit never reaches.

`finedge calibrate` fits a temperature and a threshold for each exit and variant. A frame leaves
where the top probability of the head is at least the threshold. Bundles without segments, and older
ones, have neither record; older versions ignore both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from finedge.errors import BundleError
from finedge.schema import Count, Share, at_most
from finedge.spec import Name

KEY = "exits"  # of the record `calibrate`
MAX_EXITS = 16


@dataclass(frozen=True)
class Exit:
    """The end of a segment.

    Attributes:
        output: the local output of the spec that is the exit's answer.
        macs: multiply-accumulates of one frame up to it.
    """

    output: Name
    macs: Count = 0


@dataclass(frozen=True)
class Segments:
    """How a bundle's models are cut; empty where they are not.

    Attributes:
        exits: in running order. There is one segment more: the rest, to the main output.
        macs: multiply-accumulates of one frame through all segments.
    """

    exits: Annotated[tuple[Exit, ...], at_most(MAX_EXITS)] = ()
    macs: Count = 0

    @property
    def count(self) -> int:
        """The number of segments; 0 where the model is not cut."""
        return len(self.exits) + 1 if self.exits else 0


@dataclass(frozen=True)
class ExitRule:
    """When a frame leaves at an exit.

    Attributes:
        output: the local output that decides.
        temperature: > 0; its scores are divided by it before the softmax.
        threshold: the frame leaves where the top probability is at least this, in [0, 1]. None:
            no frame leaves here.
    """

    output: Name
    temperature: float
    threshold: Share | None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BundleError(
                f"exit {self.output} has temperature {self.temperature}",
                expected="a number > 0",
                fix="finedge calibrate BUNDLE --data DIR",
            )


def segment_file(file: str, index: int) -> str:
    """Return the name of a segment of a model file.

    >>> segment_file("model.int8.cpu.onnx", 1)
    'model.int8.cpu.seg1.onnx'
    """
    return f"{file.removesuffix('.onnx')}.seg{index}.onnx"
