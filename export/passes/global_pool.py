"""mean over (H, W) of [B, C, H, W] = Flatten(GlobalAveragePool): the form that INT8 runtimes know.

PyTorch exports average pooling as ReduceMean over the last two axes. ONNX Runtime and TensorRT
quantize GlobalAveragePool.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.values import input_of, replace_value


class GlobalPoolPass(InPlacePass):
    """Replace the spatial mean of a feature map by GlobalAveragePool."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every ReduceMean over axes (2, 3) of a rank-4 tensor."""
        means = [n for n in model.graph if n.op_type == "ReduceMean" and _is_spatial_mean(n)]
        for node in means:
            _replace(model.graph, node)
        return PassResult(model, bool(means))


def _is_spatial_mean(node: ir.Node) -> bool:
    source, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if source is None or source.shape is None or axes is None or axes.const_value is None:
        return False
    rank = len(source.shape)
    return rank == 4 and sorted(int(a) % rank for a in axes.const_value.numpy().ravel()) == [2, 3]


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    source, result = input_of(node, 0), node.outputs[0]
    assert source.shape is not None  # _is_spatial_mean read it
    pool = ir.node("GlobalAveragePool", [source], name=f"{node.name}/pool")
    last = pool
    graph.insert_before(node, pool)
    if not node.attributes.get_int("keepdims", 1):
        last = ir.node("Flatten", [pool.outputs[0]], name=f"{node.name}/flatten")
        graph.insert_before(node, last)
        pool.outputs[0].shape = ir.Shape([source.shape[0], source.shape[1], 1, 1])
        pool.outputs[0].type = result.type
    replace_value(result, last.outputs[0])
    graph.remove(node, safe=True)
