"""attention(q, W_k X, W_v X) = W_v attention(W_k^T q, X, X): the raw tap is both key and value.

Key and value projections are linear, so they move to the query's side, where a deep query has few positions (49 at 224 px) and a
shallow tap has many (784):
    logits = q^T (W_k X) = (W_k^T q)^T X,        W_v X A^T = W_v (X A^T).
A key bias adds the same number to a whole row of logits and drops out of the softmax; rows of A sum to 1, so a value bias is just added.
Done where it costs fewer multiply-accumulates, counted for each node (exact: only sums are reordered).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.projection import Projection, insert_projection, read_projection
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of one node with its key and value projections, batch 1, in both forms."""

    projected: int
    absorbed: int


class AbsorbProjectionsPass(InPlacePass):
    """Move key and value projections behind the attention where that is cheaper."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every CrossLayerAttention whose keys and values are 1x1 convolutions of one tensor."""
        nodes = [n for n in model.graph if (n.domain, n.op_type) == (DOMAIN, CROSS_LAYER_ATTENTION.name)]
        changed = [_absorb(model.graph, n) for n in nodes]
        return PassResult(model, any(changed))


def count(*, queries: int, keys: int, channels: int, width: int, value_width: int) -> Cost:
    """Count both forms: Nq = `queries`, Nk = `keys` positions, C = `channels` of the tap, d = `width`, dv = `value_width`."""
    both = width + value_width
    return Cost(keys * both * (channels + queries), queries * channels * (both + 2 * keys))


def _absorb(graph: ir.Graph, node: ir.Node) -> bool:
    key, value = (read_projection(node.inputs[i]) for i in (1, 2))
    if key is None or value is None or key.source is not value.source or not _cheaper(node, key, value):
        return False
    query, answer = node.inputs[0], node.outputs[0]
    assert query is not None  # q is not optional
    turned: NDArray[np.floating] = np.ascontiguousarray(key.weight.transpose(1, 0, 2, 3))
    node.replace_input_with(0, insert_projection(graph, query, before=node, weight=turned, bias=None, name=f"{node.name}/query"))
    for index in (1, 2):
        node.replace_input_with(index, key.source)
    following = answer.uses()
    projected = insert_projection(graph, answer, after=node, weight=value.weight, bias=value.bias, name=f"{node.name}/value")
    projected.shape, projected.type = answer.shape, answer.type
    if answer.shape is not None:
        answer.shape = ir.Shape([answer.shape[0], value.weight.shape[1], *answer.shape[2:]])
    for use in following:
        use.node.replace_input_with(use.idx, projected)
    return True


def _cheaper(node: ir.Node, key: Projection, value: Projection) -> bool:
    positions = [_positions(node.inputs[0]), _positions(key.source)]
    if None in positions or node.outputs[0].is_graph_output():
        return False
    width, channels = key.weight.shape[:2]
    cost = count(queries=positions[0] or 0, keys=positions[1] or 0, channels=channels, width=width, value_width=len(value.weight))
    return cost.absorbed < cost.projected


def _positions(value: ir.Value | None) -> int | None:
    """Return H * W of [B, C, H, W], or None where a side is not known."""
    if value is None or value.shape is None or len(value.shape) != 4:
        return None
    sides = [d for d in value.shape[2:] if isinstance(d, int)]
    return prod(sides) if len(sides) == 2 else None
