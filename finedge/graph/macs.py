"""The multiply-accumulates of a graph's products, counted from shapes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from finedge.graph.patterns import PRODUCTS
from finedge.graph.sizes import Shapes

if TYPE_CHECKING:
    from onnx import GraphProto


def product_macs(graph: GraphProto, shapes: Shapes) -> Mapping[str, int]:
    """Return the multiply-accumulates of each product for one image; open sizes count as 1."""
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    counts = {}
    for node in (n for n in graph.node if n.op_type in PRODUCTS):
        output = [size or 1 for size in shapes.get(node.output[0], ())]
        if node.op_type == "MatMul":
            counts[node.name] = prod(output) * ((shapes.get(node.input[0]) or (1,))[-1] or 1)
        else:
            pixels = prod(output[2:]) if node.op_type == "Conv" else 1
            counts[node.name] = prod(weights.get(node.input[1], (0,))) * pixels
    return counts
