"""conv1x1(s x + t) = conv1x1'(x): a BatchNorm before projections becomes part of them.

    W (s x + t) + b = (W diag(s)) x + (W t + b).
CNL normalises the maps that it attends to, where these are linear bottlenecks. The BatchNorm is
then no node of the graph, and INT8 needs no range for it. A BatchNorm after a convolution is left
alone: every runtime merges it with that one.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.projection import affine_of, insert_projection, read_projection
from finedge.export.passes.values import has_constant_inputs, input_of, replace_value


class FoldNormsPass(InPlacePass):
    """Merge each BatchNorm that only 1x1 convolutions read, and no convolution makes, with them."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the graph in place."""
        norms = [n for n in model.graph if n.op_type == "BatchNormalization"]
        changed = [_fold(model.graph, norm) for norm in norms]
        return PassResult(model, any(changed))


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    source, result = input_of(norm, 0), norm.outputs[0]
    producer = source.producer()
    after_convolution = producer is not None and producer.op_type == "Conv"
    if after_convolution or result.is_graph_output() or not has_constant_inputs(norm):
        return False
    outputs = [node.outputs[0] for node in result.consumers()]
    projections = [read_projection(output) for output in outputs]
    if not outputs or any(p is None or p.source is not result for p in projections):
        return False
    factor, shift = affine_of(norm)
    for output, projection in zip(outputs, projections, strict=True):
        node = output.producer()
        assert projection is not None  # checked above
        assert node is not None
        matrix = projection.weight[:, :, 0, 0]
        folded = insert_projection(
            graph,
            source,
            weight=projection.weight * factor[None, :, None, None],
            bias=projection.bias + matrix @ shift,
            name=f"{node.name}/normalised",
            before=node,
        )
        replace_value(output, folded)
    return True
