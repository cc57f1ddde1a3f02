"""attention(q, W_k X, W_v X) = W_v attention(W_k^T q, X, X): the raw map is both key and value.

Key and value projections are linear, so they move to the query's side. There a deep query has few
positions (49 at 224 px), where a shallow map has many (784):
    logits = q^T (W_k X) = (W_k^T q)^T X,        W_v X A^T = W_v (X A^T).
A key bias adds the same number to a whole row of logits and drops out of the softmax. Rows of A sum
to 1, so a value bias is just added. The rewrite is exact: only sums are reordered. Whether it pays
is counted in `finedge.export.cost`.

Keys that are not a 1x1 convolution of one map are left alone. CNL's joint softmax concatenates
several maps, each with its own W_k^T q. In `cs` several attentions share the keys. In `clca_cga`
the keys are not a projection.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.projection import Projection, insert_projection, read_projection
from finedge.export.passes.values import input_of, replace_value
from finedge.graph.attention import is_attention


class AbsorbProjectionsPass(InPlacePass):
    """Move the key and value projections of some CrossLayerAttention nodes to the query's side.

    Args:
        nodes: the names of the nodes. One whose keys and values are no projections of one map stays
            what it is.
    """

    def __init__(self, nodes: Set[str]) -> None:
        self.nodes = nodes

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the nodes; the value projection now makes their result, under the same name."""
        nodes = [n for n in attentions(model.graph) if n.name in self.nodes]
        changed = [_absorb(model.graph, n) for n in nodes]
        return PassResult(model, any(changed))


def attentions(graph: ir.Graph) -> list[ir.Node]:
    """Return the CrossLayerAttention nodes of a graph."""
    return [node for node in graph if is_attention(node)]


def read_key_and_value(node: ir.Node) -> tuple[Projection, Projection] | None:
    """Read keys and values of an attention as two projections of one map.

    None for anything else, and where another node reads a projection.
    """
    key, value = (read_projection(node.inputs[i]) for i in (1, 2))
    if key is None or value is None or key.source is not value.source:
        return None
    return key, value


def _absorb(graph: ir.Graph, node: ir.Node) -> bool:
    projections = read_key_and_value(node)
    if projections is None:
        return False
    key, value = projections
    transposed: NDArray[np.floating] = np.ascontiguousarray(key.weight.transpose(1, 0, 2, 3))
    query = insert_projection(
        graph,
        input_of(node, 0),
        weight=transposed,
        bias=np.zeros(len(transposed), transposed.dtype),
        name=f"{node.name}/query",
        before=node,
    )
    absorbed = ir.node(
        node.op_type,
        [query, key.source, key.source],
        node.attributes,
        domain=node.domain,
        name=f"{node.name}/absorbed",
    )
    graph.insert_before(node, absorbed)
    mixed = absorbed.outputs[0]
    mixed.name, mixed.shape, mixed.type = f"{node.name}/mixed", query.shape, query.type
    projected = insert_projection(
        graph, mixed, weight=value.weight, bias=value.bias, name=f"{node.name}/value", before=node
    )
    replace_value(node.outputs[0], projected)
    graph.remove(node, safe=True)
    return True
