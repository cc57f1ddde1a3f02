"""The torch form of each ONNX op that our exported graphs hold, apart from their layers.

Opset 20. Every function takes the node's attributes and inputs, None for an input left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = dict[str, Any]
Inputs = Sequence[Any]  # tensors, or None
TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def attributes_of(node: onnx.NodeProto) -> Attributes:
    """Return the attributes of a node as plain Python values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _clip(attributes: Attributes, inputs: Inputs) -> Tensor:
    low, high = (*inputs[1:], None, None)[:2]
    return torch.clamp(inputs[0], low, high)


def _reshape(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, sizes = inputs[0], inputs[1].tolist()
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    result: Tensor = x.reshape(sizes)
    return result


def _flatten(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, axis = inputs[0], attributes.get("axis", 1)
    result: Tensor = x.reshape(int(torch.tensor(x.shape[:axis]).prod()), -1)
    return result


def _squeeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    axes = tuple(inputs[1].tolist()) if len(inputs) > 1 else None
    result: Tensor = inputs[0].squeeze() if axes is None else inputs[0].squeeze(axes)
    return result


def _pad(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, pads = inputs[0], inputs[1].tolist()
    ends = [n for axis in reversed(range(x.ndim)) for n in (pads[axis], pads[axis + x.ndim])]
    return F.pad(x, ends, mode=attributes.get("mode", b"constant").decode())


def _top_values(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Return the values alone: no graph of ours reads the indices."""
    x, count = inputs[0], int(inputs[1])
    largest = bool(attributes.get("largest", 1))
    return torch.topk(x, count, dim=attributes.get("axis", -1), largest=largest).values


def _unsqueeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = inputs[0]
    rank = x.ndim + inputs[1].numel()
    for axis in sorted(axis % rank for axis in inputs[1].tolist()):
        x = x.unsqueeze(axis)
    result: Tensor = x
    return result


def _reduce(kind: Callable[..., Tensor]) -> Callable[[Attributes, Inputs], Tensor]:
    def apply(attributes: Attributes, inputs: Inputs) -> Tensor:
        x = inputs[0]
        axes = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else range(x.ndim)
        return kind(x, dim=tuple(axes), keepdim=bool(attributes.get("keepdims", 1)))

    return apply


def _max_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, pads = inputs[0], attributes.get("pads", [0, 0, 0, 0])
    x = F.pad(x, (pads[1], pads[3], pads[0], pads[2]), value=-torch.inf)
    return F.max_pool2d(
        x,
        attributes["kernel_shape"],
        stride=attributes.get("strides", [1, 1]),
        dilation=attributes.get("dilations", [1, 1]),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    return F.avg_pool2d(
        inputs[0],
        attributes["kernel_shape"],
        stride=attributes.get("strides", [1, 1]),
        padding=pads[:2],
        count_include_pad=bool(attributes.get("count_include_pad", 0)),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def _batch_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, weight, bias, mean, variance = inputs
    epsilon = attributes.get("epsilon", 1e-5)
    shape = (1, -1, *[1] * (x.ndim - 2))
    factor = (weight / torch.sqrt(variance + epsilon)).reshape(shape)
    result: Tensor = (x - mean.reshape(shape)) * factor + bias.reshape(shape)
    return result


def _gemm(attributes: Attributes, inputs: Inputs) -> Tensor:
    a = inputs[0].T if attributes.get("transA", 0) else inputs[0]
    b = inputs[1].T if attributes.get("transB", 0) else inputs[1]
    result: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    if len(inputs) > 2 and inputs[2] is not None:
        result = result + attributes.get("beta", 1.0) * inputs[2]
    return result


def _conv(attributes: Attributes, inputs: Inputs) -> Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    x = F.pad(inputs[0], (pads[1], pads[3], pads[0], pads[2]))
    return F.conv2d(
        x,
        inputs[1],
        inputs[2] if len(inputs) > 2 else None,
        stride=attributes.get("strides", [1, 1]),
        dilation=attributes.get("dilations", [1, 1]),
        groups=attributes.get("group", 1),
    )


OPS: dict[str, Callable[[Attributes, Inputs], Tensor]] = {
    "Add": lambda a, x: x[0] + x[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda a, x: x[0].to(TYPES[a["to"]]),
    "Clip": _clip,
    "Concat": lambda a, x: torch.cat(list(x), dim=a["axis"]),
    "Conv": _conv,
    "Div": lambda a, x: x[0] / x[1],
    "Elu": lambda a, x: F.elu(x[0], alpha=a.get("alpha", 1.0)),
    "Exp": lambda a, x: x[0].exp(),
    "Expand": lambda a, x: x[0] * torch.ones(x[1].tolist(), dtype=x[0].dtype, device=x[0].device),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x[0].mean(dim=(2, 3), keepdim=True),
    "Gather": lambda a, x: x[0].index_select(a.get("axis", 0), x[1]),
    "Identity": lambda a, x: x[0],
    "Log": lambda a, x: x[0].log(),
    "MatMul": lambda a, x: x[0] @ x[1],
    "Max": lambda a, x: torch.maximum(x[0], x[1]),
    "MaxPool": _max_pool,
    "Mul": lambda a, x: x[0] * x[1],
    "Neg": lambda a, x: -x[0],
    "Pad": _pad,
    "Pow": lambda a, x: x[0] ** x[1],
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda a, x: F.relu(x[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda a, x: torch.sigmoid(x[0]),
    "Softmax": lambda a, x: torch.softmax(x[0], dim=a.get("axis", -1)),
    "Sqrt": lambda a, x: x[0].sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda a, x: x[0] - x[1],
    "Tanh": lambda a, x: torch.tanh(x[0]),
    "TopK": _top_values,
    "Transpose": lambda a, x: x[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}
