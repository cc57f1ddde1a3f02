"""Sizes of a model's tensors, before anything is allocated: a file may ask for any size."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

# Of one tensor for one frame: twenty times the largest that a frame of 4K video needs (3 float32
# planes, 100 MB).
MOST_BYTES = 2 << 30
FEW = 1024  # numbers: shapes, axes and scales are kept, since sizes are computed from them


def too_large(model: ModelProto) -> str | None:
    """Return what is too large in a model, e.g. "logits: [10000000000], 40 GB"; or None.

    Open sizes, such as the batch, count as 1.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(_skeleton(model), data_prop=True).graph
    for value in (*graph.value_info, *graph.output):
        sizes, size = _bytes(value)
        if size > MOST_BYTES:
            return f"{value.name}: {sizes}, {size / 1e9:.0f} GB"
    return None


def _bytes(value: ValueInfoProto) -> tuple[list[int], int]:
    from onnx import helper

    kind = value.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else 1 for d in kind.shape.dim]
    known = kind.elem_type in helper.get_all_tensor_dtypes()
    return sizes, prod(sizes) * (
        helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize if known else 1
    )


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
    graph.initializer.extend(t for t in model.graph.initializer if prod(t.dims) <= FEW)
    graph.input.extend(_weights(model.graph))
    return thin


def _weights(graph: GraphProto) -> Iterator[ValueInfoProto]:
    from onnx import helper

    inputs = {i.name for i in graph.input}
    large: list[TensorProto] = [
        t for t in graph.initializer if prod(t.dims) > FEW and t.name not in inputs
    ]
    for tensor in large:
        yield helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
