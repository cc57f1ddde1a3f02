"""Whole frames in: the resize and crop of `finedge/preprocess.py` become two constant MatMuls at the head of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from finedge.errors import FinedgeError
from finedge.resample import resize_matrices
from finedge.spec import Preprocess

PREFIX = "frame/"


def accept_frames(model: ModelProto, how: Preprocess, *, height: int, width: int) -> ModelProto:
    """Return a copy of `model` that takes uint8 [B, height, width, 3] instead of crops; plain ONNX, any runtime.

    It rounds to grey levels where Pillow and OpenCV do, half up as they do: that is what training saw. Only the part of the frame that the
    crop reads is computed with. Weights, Q/DQ nodes and outputs stay as they are.

    Raises:
        FinedgeError: the graph does not begin as `to_onnx` writes it: Cast to float32, then Transpose to planes.
    """
    framed = ModelProto()
    framed.CopyFrom(model)
    graph = framed.graph
    cast, transpose = _head(framed)
    rows, columns = resize_matrices(how, height=height, width=width)
    (top, bottom), (left, right) = _read(rows), _read(columns)
    constants = {
        "begin": np.array([top, left], np.int64),
        "end": np.array([bottom, right], np.int64),
        "axes": np.array([1, 2], np.int64),
        "columns": np.ascontiguousarray(columns[:, left:right].T),
        "rows": np.ascontiguousarray(rows[:, top:bottom]),
        "half": np.float32(0.5),
        "black": np.float32(0),
        "white": np.float32(255),
    }
    nodes = _nodes(
        graph.input[0].name, transpose.output[0], rounds_between=how.method.startswith("pillow")
    )
    rest = [n for n in graph.node if n not in (cast, transpose)]
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), PREFIX + k) for k, v in constants.items()
    )
    shape = graph.input[0].type.tensor_type.shape
    shape.dim[1].dim_value, shape.dim[2].dim_value = height, width
    return framed


def _head(model: ModelProto) -> tuple[NodeProto, NodeProto]:
    """Return the Cast and the Transpose that turn frames into planes."""
    name, found = model.graph.input[0].name, []
    for kind in ("Cast", "Transpose"):
        readers = [n for n in model.graph.node if name in n.input]
        if len(readers) != 1 or readers[0].op_type != kind:
            raise FinedgeError(
                f"{name} is read by {[n.op_type for n in readers]}",
                expected=f"one {kind}, as finedge export writes it",
                fix="export again",
            )
        found.append(readers[0])
        name = readers[0].output[0]
    return found[0], found[1]


def _read(matrix: NDArray[np.float32]) -> tuple[int, int]:
    """Return the first and one past the last source position with a weight."""
    used = np.flatnonzero(matrix.any(axis=0))
    return int(used[0]), int(used[-1]) + 1


class _Chain:
    """Nodes one behind the other; each call appends one and returns its output's name."""

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


def _nodes(frames: str, planes: str, *, rounds_between: bool) -> list[NodeProto]:
    """Return the nodes from uint8 frames [B, height, width, 3] to float32 planes [B, 3, crop, crop]."""
    chain = _Chain()
    pixels = chain.add(
        "Cast", frames, to=TensorProto.FLOAT
    )  # first: TensorRT cannot transpose uint8
    part = chain.add("Slice", pixels, f"{PREFIX}begin", f"{PREFIX}end", f"{PREFIX}axes")
    narrow = chain.add(
        "MatMul", chain.add("Transpose", part, perm=[0, 3, 1, 2]), f"{PREFIX}columns"
    )  # first, as both libraries do
    crop = chain.add("MatMul", f"{PREFIX}rows", chain.grey(narrow) if rounds_between else narrow)
    chain.grey(crop, out=planes)
    return chain.nodes
