"""Whole frames in: the resize and crop of `finedge/preprocess.py` as the first nodes of a graph.

They become two constant MatMuls, after an AveragePool for each halving of `cv2-antialias`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from finedge.errors import FinedgeError
from finedge.graph.edit import copied, replace_items
from finedge.graph.patterns import TO_PLANES, frames_to_planes
from finedge.resample import Resampling, resampling
from finedge.spec import Preprocess

PREFIX = "frame/"


def accept_frames(
    model: ModelProto, preprocess: Preprocess, *, height: int, width: int
) -> ModelProto:
    """Return a copy of `model` that takes uint8 [B, height, width, 3] instead of crops.

    It is plain ONNX for any runtime. It rounds to grey levels where Pillow and OpenCV do, half up
    as they do, since training saw such crops. Only the part of the frame that the crop reads is
    used. Weights, Q/DQ nodes and outputs stay as they are.

    Raises:
        FinedgeError: the graph does not begin as `to_onnx` writes it: Cast to float32, then
            Transpose to planes.
    """
    framed = copied(model)
    graph = framed.graph
    cast, transpose = _head(graph)
    steps = resampling(preprocess, height=height, width=width)
    constants = {
        "begin": np.array([steps.top, steps.left], np.int64),
        "end": np.array([steps.bottom, steps.right], np.int64),
        "axes": np.array([1, 2], np.int64),
        "columns": np.ascontiguousarray(steps.columns.T),
        "rows": np.ascontiguousarray(steps.rows),
        "half": np.float32(0.5),
        "black": np.float32(0),
        "white": np.float32(255),
    }
    nodes = _nodes(graph.input[0].name, transpose.output[0], steps)
    rest = [node for node in graph.node if node not in (cast, transpose)]
    replace_items(graph.node, [*nodes, *rest])
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), PREFIX + k) for k, v in constants.items()
    )
    shape = graph.input[0].type.tensor_type.shape
    shape.dim[1].dim_value, shape.dim[2].dim_value = height, width
    return framed


def resize_head(framed: ModelProto) -> ModelProto:
    """Return the part of a framed graph that makes float32 planes [B, 3, crop, crop] of frames."""
    head = copied(framed)
    nodes = [node for node in framed.graph.node if node.name.startswith(PREFIX)]
    planes = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    constants = [t for t in framed.graph.initializer if t.name.startswith(PREFIX)]
    del head.graph.value_info[:], head.functions[:]
    replace_items(head.graph.node, nodes)
    replace_items(head.graph.output, [planes])
    replace_items(head.graph.initializer, constants)
    return head


def _head(graph: GraphProto) -> tuple[NodeProto, NodeProto]:
    """Return the Cast and the Transpose that turn frames into planes."""
    head = frames_to_planes(graph)
    if head is None:
        raise FinedgeError(
            f"the graph begins with {', '.join(node.op_type for node in graph.node[:2])}",
            expected="one Cast, then one Transpose to planes, as finedge export writes it",
            fix="export again",
        )
    return head


class _Chain:
    """Nodes one after the other; each call appends one and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def add(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Append a node."""
        name = f"{PREFIX}{len(self.nodes)}_{op}"
        self.nodes.append(
            helper.make_node(op, list(inputs), [out or name], name=name, **attributes)
        )
        return out or name

    def grey(self, values: str, out: str = "") -> str:
        """Append the rounding to grey levels."""
        levels = self.add("Floor", self.add("Add", values, f"{PREFIX}half"))
        return self.add("Clip", levels, f"{PREFIX}black", f"{PREFIX}white", out=out)


def _nodes(frames: str, planes: str, steps: Resampling) -> list[NodeProto]:
    """Return the nodes from uint8 frames [B, height, width, 3] to float32 [B, 3, crop, crop]."""
    chain = _Chain()
    # The Cast is first: TensorRT cannot transpose uint8.
    pixels = chain.add("Cast", frames, to=TensorProto.FLOAT)
    part = chain.add("Slice", pixels, f"{PREFIX}begin", f"{PREFIX}end", f"{PREFIX}axes")
    part = chain.add("Transpose", part, perm=TO_PLANES)
    for block in steps.halvings:
        part = chain.grey(chain.add("AveragePool", part, kernel_shape=block, strides=block))
    # Columns before rows, as both libraries do.
    narrow = chain.add("MatMul", part, f"{PREFIX}columns")
    narrow = chain.grey(narrow) if steps.rounds_between else narrow
    chain.grey(chain.add("MatMul", f"{PREFIX}rows", narrow), out=planes)
    return chain.nodes
