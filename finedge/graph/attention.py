"""Our attention nodes: the one place that finds them and reads their tensors and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from finedge.errors import BundleError
from finedge.graph.folding import fold
from finedge.graph.sizes import Shapes, shapes_of
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


class NodeOfOp(Protocol):
    """A node of onnx or of onnx_ir."""

    @property
    def domain(self) -> str: ...  # noqa: D102 - as ONNX has it

    @property
    def op_type(self) -> str: ...  # noqa: D102 - as ONNX has it


@dataclass(frozen=True)
class AttentionNode:
    """One cross-layer attention: softmax(scale q^T k) weighs the values.

    Attributes:
        name: the node's name.
        query: the tensor of the queries, [B, d, Hq, Wq].
        key: the tensor of the keys, [B, d, Hk, Wk].
        value: the tensor of the values, [B, dv, Hk, Wk].
        scale: multiplies the logits.
        queries: positions of the query map, Hq * Wq; 0 where the graph does not say.
        keys: positions of the key map, Hk * Wk; 0 where the graph does not say.
        d: channels of a query and a key: the head size; 0 where the graph does not say.
        dv: channels of a value; 0 where the graph does not say.
    """

    name: str
    query: str
    key: str
    value: str
    scale: float
    queries: int = 0
    keys: int = 0
    d: int = 0
    dv: int = 0

    @property
    def shared(self) -> bool:
        """Whether keys and values are one tensor."""
        return self.key == self.value


def is_attention(node: NodeOfOp) -> bool:
    """Tell whether a node is a CrossLayerAttention of ours, in onnx or in onnx_ir."""
    return (node.domain, node.op_type) == (DOMAIN, CROSS_LAYER_ATTENTION.name)


def attention_nodes(model: ModelProto) -> tuple[AttentionNode, ...]:
    """Return the attention nodes of a model in running order, inlined or not.

    Sizes are those that the model states; run shape inference first to have all of them.

    Raises:
        BundleError: the nodes of a call do not belong together any more (`finedge.graph.folding`),
            or one lacks an input or its scale.
    """
    shapes = shapes_of(model)
    nodes = fold(model, CROSS_LAYER_ATTENTION).graph.node
    return tuple(read_attention(node, shapes) for node in nodes if is_attention(node))


def read_attention(node: NodeProto, shapes: Shapes) -> AttentionNode:
    """Read one attention node; `shapes` by tensor, as far as they are known.

    Raises:
        BundleError: it lacks an input or its scale.
    """
    scale = next((a.f for a in node.attribute if a.name == "scale"), None)
    if len(node.input) != len(CROSS_LAYER_ATTENTION.inputs) or scale is None:
        raise BundleError(
            f"attention node '{node.name}' has {len(node.input)} inputs and the scale {scale}",
            expected="queries, keys, values and a scale",
            fix="export again",
        )
    query, key, value = node.input
    (d, queries), (_, keys), (dv, _) = (_map_size(shapes.get(name, ())) for name in node.input)
    return AttentionNode(node.name, query, key, value, scale, queries, keys, d, dv)


def _map_size(shape: tuple[int | None, ...]) -> tuple[int, int]:
    """Return channels and positions of [B, C, H, W]; zeros where one of them is not known."""
    sizes = [size for size in shape[1:] if size]
    return (sizes[0], sizes[1] * sizes[2]) if len(shape) == 4 and len(sizes) == 3 else (0, 0)
