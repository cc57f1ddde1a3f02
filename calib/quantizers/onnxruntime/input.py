"""The frame's grey levels as the first quantized tensor, where normalisation is exactly that.

(level - 127) / 128 is the value of the byte `level` with scale 1/128 and zero point 127. So the
frame's bytes go into the first convolution as they are: no Cast, no BatchNormalization, no
QuantizeLinear, and in NHWC, as ONNX Runtime's convolution wants them. It needs one standard
deviation for all channels, and means of one whole grey level. Other normalisations stay in float:
folding a standard deviation of each channel into the weights would be exact, but padding with one
byte would not be the mean of every channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from finedge.calib.ranges.calibration_table import CalibrationTable, Range
from finedge.graph.edit import drop_unread_initializers, replace_items
from finedge.graph.patterns import TO_PLANES, frames_to_planes
from finedge.graph.walk import consumers

LEVELS = 255
# Of a grey level: float32 arithmetic of the normalisation.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class GreyLevels:
    """A normalised tensor whose values are steps of grey levels: step * (level - zero_point)."""

    tensor: str
    step: float
    zero_point: int

    @property
    def range(self) -> Range:
        """The values of all grey levels."""
        return Range(-self.step * self.zero_point, self.step * (LEVELS - self.zero_point))


def grey_levels(graph: onnx.GraphProto) -> GreyLevels | None:
    """Return the normalised frame of a float model; None where it is no steps of grey levels."""
    head = frames_to_planes(graph)
    if head is None:
        return None
    readers = consumers(graph).get(head[1].output[0], [])
    if [node.op_type for node in readers] != ["BatchNormalization"]:
        return None
    stored = {tensor.name: tensor for tensor in graph.initializer}
    if any(name not in stored for name in readers[0].input[1:]):
        return None
    factor, shift = _affine(readers[0], stored)
    zeros = -shift / factor
    zero = round(float(zeros[0]))
    if np.ptp(factor) > 0 or np.abs(zeros - zero).max() > TOLERANCE or not 0 <= zero <= LEVELS:
        return None
    return GreyLevels(readers[0].output[0], float(factor[0]), zero)


def with_grey_levels(table: CalibrationTable, levels: GreyLevels | None) -> CalibrationTable:
    """Return the table in which the normalised frame has the range of all grey levels."""
    if levels is None or levels.tensor not in table.ranges:
        return table
    return replace(table, ranges={**table.ranges, levels.tensor: levels.range})


def read_bytes(model: onnx.ModelProto, levels: GreyLevels | None) -> bool:
    """Let the first layer of a Q/DQ model read the frame's bytes; return whether it does now.

    It does not where the first layer stays in float.
    """
    graph = model.graph
    head = frames_to_planes(graph)
    quantizers = [] if levels is None else consumers(graph).get(levels.tensor, [])
    if head is None or [node.op_type for node in quantizers] != ["QuantizeLinear"]:
        return False
    (quantizer,) = quantizers
    cast, transpose = head
    normalise = consumers(graph)[transpose.output[0]]
    planes = onnx.helper.make_node(
        "Transpose", [cast.input[0]], [quantizer.output[0]], name=transpose.name, perm=TO_PLANES
    )
    replaced = [cast, transpose, *normalise, quantizer]
    rest = [node for node in graph.node if node not in replaced]
    replace_items(graph.node, [planes, *rest])
    drop_unread_initializers(graph)
    return True


def _affine(
    node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return factor and shift of each channel of a BatchNormalization with constant inputs."""
    gamma, beta, mean, variance = (
        numpy_helper.to_array(stored[name]).astype(np.float64) for name in node.input[1:5]
    )
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor
