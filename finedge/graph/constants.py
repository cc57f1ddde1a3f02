"""Constants of a graph, and constant folding of an inlined function body.

Some readers take no reshape to a computed shape, no Constant of integers and no CastLike: the older
of cv2.dnn's two engines, OpenCV 4 too. With the sizes known at export, none of these is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finedge.graph.sizes import Shapes
from finedge.graph.walk import is_standard

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto


def constant_names(graph: GraphProto) -> set[str]:
    """Return the names of the initializers and of what Constant nodes make."""
    nodes = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    return {tensor.name for tensor in graph.initializer} | nodes


def constant_value(node: NodeProto) -> Any:
    """Return what a Constant node holds as an array; None for strings and sparse tensors."""
    import numpy as np
    from onnx import helper, numpy_helper

    dtypes = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name in dtypes:
            return np.asarray(helper.get_attribute_value(attribute), dtypes[attribute.name])
    return None


class FoldedConstants:
    """The computed constants of one function body, as arrays by tensor name.

    Args:
        types: the ONNX element types of the graph's tensors, as far as they are known.
        shapes: their shapes, as far as they are known.
    """

    def __init__(self, types: dict[str, int], shapes: Shapes) -> None:
        self.types, self.shapes = types, shapes
        self.values: dict[str, Any] = {}

    def take(self, node: NodeProto) -> bool:
        """Store what a node makes if that is a constant; return whether it is."""
        from onnx import helper

        value = self._value(node) if is_standard(node) else None
        if value is None:
            return False
        self.values[node.output[0]] = value
        self.types[node.output[0]] = helper.np_dtype_to_tensor_dtype(value.dtype)
        return True

    def tensors(self) -> list[TensorProto]:
        """Return the stored values as initializers."""
        from onnx import numpy_helper

        return [numpy_helper.from_array(value, name) for name, value in self.values.items()]

    def _value(self, node: NodeProto) -> Any:
        """Return what a node makes as an array; None where that is no constant."""
        import numpy as np
        from onnx import helper

        if node.op_type == "Constant":
            return constant_value(node)
        if node.op_type == "Shape":
            return self._sizes(node)
        values: list[Any] = [self.values[name] for name in node.input if name in self.values]
        if node.op_type == "CastLike" and node.input[0] in self.values:
            element_type = self.types.get(node.input[1])
            if element_type:
                return values[0].astype(helper.tensor_dtype_to_np_dtype(element_type))
        if not values or len(values) < len(node.input):
            return None
        if node.op_type == "Concat":
            return np.concatenate(values, axis=_attribute(node, "axis", 0))
        if node.op_type == "ReduceProd" and len(values) == 1:  # over all axes
            product = np.prod(values[0], keepdims=bool(_attribute(node, "keepdims", 1)))
            return product.astype(values[0].dtype)
        if node.op_type == "Reshape" and 0 not in values[1]:
            return values[0].reshape(values[1])
        return None

    def _sizes(self, node: NodeProto) -> Any:
        """Return the part of a shape that a Shape node asks for; None if a size in it is open."""
        import numpy as np

        shape = self.shapes.get(node.input[0])
        if shape is None:
            return None
        part = shape[_attribute(node, "start", 0) : _attribute(node, "end", len(shape))]
        return None if None in part else np.array(part, np.int64)


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)
