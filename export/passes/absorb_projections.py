"""attention(q, W_k X, W_v X) = W_v attention(W_k^T q, X, X): the raw map is both key and value.

Key and value projections are linear, so they move to the query's side, where a deep query has few positions (49 at 224 px) and a
shallow map has many (784):
    logits = q^T (W_k X) = (W_k^T q)^T X,        W_v X A^T = W_v (X A^T).
A key bias adds the same number to a whole row of logits and drops out of the softmax; rows of A sum to 1, so a value bias is just added.
Exact: only sums are reordered. Whether it pays is counted in `cost.py`.

Left alone is what is no 1x1 convolution of one map: CNL's joint softmax (a concatenation of several maps, each with a W_k^T q of its own),
keys that several attentions share (cs), and keys that are no projection (clca_cga).
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.projection import Projection, given, insert_projection, read_projection
from finedge.export.passes.replacing import take_over
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN


class AbsorbProjectionsPass(InPlacePass):
    """Move the key and value projections of some CrossLayerAttention nodes to the query's side.

    Args:
        nodes: the names of the nodes; one whose keys and values are no projections of one map stays what it is.
    """

    def __init__(self, nodes: Set[str]) -> None:
        self.nodes = nodes

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the nodes; what they returned keeps its name, and comes out of the value projection now."""
        found = [n for n in attentions(model.graph) if n.name in self.nodes]
        changed = [_absorb(model.graph, n) for n in found]
        return PassResult(model, any(changed))


def attentions(graph: ir.Graph) -> list[ir.Node]:
    """Return the CrossLayerAttention nodes of a graph."""
    return [n for n in graph if (n.domain, n.op_type) == (DOMAIN, CROSS_LAYER_ATTENTION.name)]


def read_key_and_value(node: ir.Node) -> tuple[Projection, Projection] | None:
    """Read keys and values of an attention as two projections of one map that nothing else reads; None for anything else."""
    key, value = (read_projection(node.inputs[i]) for i in (1, 2))
    return (
        (key, value)
        if key is not None and value is not None and key.source is value.source
        else None
    )


def _absorb(graph: ir.Graph, node: ir.Node) -> bool:
    read = read_key_and_value(node)
    if read is None:
        return False
    key, value = read
    turned: NDArray[np.floating] = np.ascontiguousarray(key.weight.transpose(1, 0, 2, 3))
    nothing = np.zeros(len(turned), turned.dtype)
    query = insert_projection(
        graph, given(node, 0), weight=turned, bias=nothing, name=f"{node.name}/query", before=node
    )
    mixed = ir.node(
        node.op_type,
        [query, key.source, key.source],
        node.attributes,
        domain=node.domain,
        name=f"{node.name}/absorbed",
    )
    graph.insert_before(node, mixed)
    answer = mixed.outputs[0]
    answer.name, answer.shape, answer.type = f"{node.name}/mixed", query.shape, query.type
    projected = insert_projection(
        graph, answer, weight=value.weight, bias=value.bias, name=f"{node.name}/value", before=node
    )
    take_over(node.outputs[0], projected)
    graph.remove(node, safe=True)
    return True
