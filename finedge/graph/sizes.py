"""Shapes of a model's tensors, and the refusal of impossible ones before anything is allocated.

A file may ask for any size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

# One open size, such as the batch, is None.
Shapes = dict[str, tuple[int | None, ...]]

# Of one tensor for one frame: twenty times the largest that a frame of 4K video needs (3 float32
# planes, 100 MB).
MAX_BYTES = 2 << 30
# Elements of an initializer that keeps its values: sizes are computed from shapes, axes and scales.
MAX_KEPT_ELEMENTS = 1024


def shapes_of(model: ModelProto) -> Shapes:
    """Return the shape of each tensor that states one; None is a size known only at run time."""
    return shapes_of_values((*model.graph.input, *model.graph.value_info, *model.graph.output))


def shapes_of_values(values: Iterable[ValueInfoProto]) -> Shapes:
    """Return the shapes of values by their name, of those that state one."""
    kinds = {value.name: value.type.tensor_type for value in values}
    return {
        name: tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        for name, kind in kinds.items()
        if kind.HasField("shape")
    }


def too_large(model: ModelProto) -> str | None:
    """Return what is too large in a model, e.g. "logits: [10000000000], 40 GB"; or None.

    Open sizes, such as the batch, count as 1.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(_skeleton(model), data_prop=True).graph
    for value in (*graph.value_info, *graph.output):
        sizes, size = _bytes(value)
        if size > MAX_BYTES:
            return f"{value.name}: {sizes}, {size / 1e9:.0f} GB"
    return None


def _bytes(value: ValueInfoProto) -> tuple[list[int], int]:
    from onnx import helper

    kind = value.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else 1 for d in kind.shape.dim]
    if kind.elem_type not in helper.get_all_tensor_dtypes():
        return sizes, prod(sizes)
    return sizes, prod(sizes) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize


def _skeleton(model: ModelProto) -> ModelProto:
    """Return the model without its weights: they become inputs of their type and shape."""
    from onnx import ModelProto as Model

    thin = Model(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        functions=model.functions,
    )
    graph = thin.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.initializer.extend(
        t for t in model.graph.initializer if prod(t.dims) <= MAX_KEPT_ELEMENTS
    )
    graph.input.extend(_weights(model.graph))
    return thin


def _weights(graph: GraphProto) -> Iterator[ValueInfoProto]:
    from onnx import helper

    inputs = {i.name for i in graph.input}
    large: list[TensorProto] = [
        t for t in graph.initializer if prod(t.dims) > MAX_KEPT_ELEMENTS and t.name not in inputs
    ]
    for tensor in large:
        yield helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
