"""Constants of an inlined body: what can be computed now is stored, not written as nodes.

A reshape to a computed shape, a Constant of integers or a CastLike is more than some readers take
(the older of cv2.dnn's two engines, OpenCV 4 too); with the sizes known at export nothing of that
is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

STANDARD = ("", "ai.onnx")
Shapes = dict[str, tuple[int | None, ...]]


class Constants:
    """The stored values of one body by tensor name.

    `types` and `shapes`: the known ones of the graph's tensors.
    """

    def __init__(self, types: dict[str, int], shapes: Shapes) -> None:
        self.types, self.shapes = types, shapes
        self.values: dict[str, Any] = {}

    def take(self, node: NodeProto) -> bool:
        """Store what a node makes, if that is a constant; tell whether it was."""
        from onnx import helper

        value = self._value(node) if node.domain in STANDARD else None
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
            return constant(node)
        if node.op_type == "Shape":
            return self._sizes(node)
        values: list[Any] = [self.values[name] for name in node.input if name in self.values]
        if (
            node.op_type == "CastLike"
            and node.input[0] in self.values
            and self.types.get(node.input[1])
        ):
            return values[0].astype(helper.tensor_dtype_to_np_dtype(self.types[node.input[1]]))
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

        known = self.shapes.get(node.input[0])
        if known is None:
            return None
        part = known[_attribute(node, "start", 0) : _attribute(node, "end", len(known))]
        return None if None in part else np.array(part, np.int64)


def constant(node: NodeProto) -> Any:
    """Return what a Constant node holds; None for strings and sparse tensors."""
    import numpy as np
    from onnx import helper, numpy_helper

    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name in kinds:
            return np.asarray(helper.get_attribute_value(attribute), kinds[attribute.name])
    return None


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)
