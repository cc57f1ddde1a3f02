"""A float ONNX graph as a torch module: the same nodes, with layers that can be trained.

A quantizer places its Q/DQ pairs in this graph. So fake quantisation in this module has exactly the
places of the INT8 file. In the model of the run it could not: the export folds BatchNorm, merges
projections and moves them across attention.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from finedge.calib.qat.torch_ops import OPS, Attributes, attributes_of
from finedge.errors import FinedgeError
from finedge.graph.edit import copied

Edge = tuple[str, int]  # the name of a node, and the index of one of its inputs


class TorchGraph(nn.Module):
    """Frames uint8 [B, H, W, 3] to the graph's outputs by name, float32 [B, classes] each.

    Attributes:
        layers: the Conv and Gemm nodes with stored weights, as `nn.Conv2d` and `nn.Linear`.
        places: modules that an edge passes through: fake quantizers. Edges that share a tensor may
            share one; it then runs once.
        edges: the key in `places` of each edge.

    Raises:
        FinedgeError: the graph has an op without a torch form.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Build the module of an inlined model with unique node names."""
        super().__init__()
        self.nodes = list(model.graph.node)
        self.feed = model.graph.input[0].name
        self.results = [output.name for output in model.graph.output]
        self.attributes = {node.name: attributes_of(node) for node in self.nodes}
        self.layers, self.places = nn.ModuleDict(), nn.ModuleDict()
        self.edges: dict[Edge, str] = {}
        self.keys: dict[str, str] = {}  # node -> key in `layers`: a key must not hold a dot
        self.constants: dict[str, str] = {}  # tensor -> buffer
        stored = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
        shared: dict[str, nn.Parameter] = {}
        for node in self.nodes:
            self._require_op(node)
            if node.op_type in ("Conv", "Gemm") and node.input[1] in stored:
                self._add_layer(node, stored, shared)
        for index, (name, array) in enumerate(stored.items()):
            self.constants[name] = f"constant_{index}"
            self.register_buffer(f"constant_{index}", torch.from_numpy(np.array(array)))

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Return every output of the graph by its name."""
        values: dict[str, Tensor | None] = {"": None, self.feed: frames}
        values |= {name: getattr(self, buffer) for name, buffer in self.constants.items()}
        passed: dict[Edge, Tensor] = {}  # by place and id of the tensor
        for node in self.nodes:
            inputs = [
                self._through_place(node, index, values[name], passed)
                for index, name in enumerate(node.input)
            ]
            values[node.output[0]] = self._compute(node, inputs)
        return {name: require_tensor(values[name]) for name in self.results}

    def read_biases(self, model: onnx.ModelProto) -> None:
        """Take the float biases that the layers have in `model`, an INT8 file for TensorRT."""
        stored = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.name in self.keys and len(node.input) > 2 and node.input[2] in stored:
                bias = torch.from_numpy(numpy_helper.to_array(stored[node.input[2]]).copy())
                self.layers[self.keys[node.name]].bias = nn.Parameter(bias)

    def write_to(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return a copy of `model`, which this module was made of, with the weights as they are."""
        changed = copied(model)
        weights: dict[str, Tensor] = {}
        for node in self.nodes:
            if node.name in self.keys:
                layer = self.layers[self.keys[node.name]]
                weights[node.input[1]] = self._stored_form(node, layer)
                if len(node.input) > 2 and node.input[2]:
                    weights[node.input[2]] = require_tensor(layer.bias)
        for tensor in changed.graph.initializer:
            if tensor.name in weights:
                array = weights[tensor.name].detach().cpu().numpy()
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return changed

    def _through_place(
        self, node: onnx.NodeProto, index: int, value: Tensor | None, passed: dict[Edge, Tensor]
    ) -> Tensor | None:
        key = self.edges.get((node.name, index))
        if key is None or value is None:
            return value
        seen = (key, id(value))
        if seen not in passed:
            passed[seen] = self.places[key](value)
        return passed[seen]

    def _compute(self, node: onnx.NodeProto, inputs: list[Tensor | None]) -> Tensor:
        attributes = self.attributes[node.name]
        if node.name not in self.keys:
            return OPS[node.op_type](attributes, inputs)
        values = require_tensor(inputs[0])
        if node.op_type == "Conv" and any(pads := uneven_pads(attributes)):
            values = F.pad(values, pads)
        result: Tensor = self.layers[self.keys[node.name]](values)
        return result

    def _add_layer(
        self,
        node: onnx.NodeProto,
        stored: Mapping[str, np.ndarray],
        shared: dict[str, nn.Parameter],
    ) -> None:
        weight = self._torch_form(node, torch.from_numpy(stored[node.input[1]]))
        has_bias = len(node.input) > 2 and node.input[2] in stored
        if node.op_type == "Conv":
            layer = _convolution(self.attributes[node.name], weight, bias=has_bias)
        else:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias)
        layer.weight = shared.setdefault(node.input[1], nn.Parameter(weight))
        if has_bias:
            bias = torch.from_numpy(stored[node.input[2]])
            layer.bias = shared.setdefault(node.input[2], nn.Parameter(bias))
        self.keys[node.name] = f"layer_{len(self.keys)}"
        self.layers[self.keys[node.name]] = layer

    def _torch_form(self, node: onnx.NodeProto, weight: Tensor) -> Tensor:
        """Return a weight as torch stores it: axis 0 is the output channel."""
        transposed = node.op_type == "Gemm" and not self.attributes[node.name].get("transB", 0)
        return weight.T.contiguous() if transposed else weight

    def _stored_form(self, node: onnx.NodeProto, layer: nn.Module) -> Tensor:
        # Of the parameter itself: a layer of modelopt gives a quantized weight while it runs.
        return self._torch_form(node, require_tensor(layer.weight))

    def _require_op(self, node: onnx.NodeProto) -> None:
        if node.op_type not in ("Conv", "Gemm", *OPS):
            raise FinedgeError(
                f"node '{node.name}': op {node.op_type} has no torch form",
                expected=f"one of {', '.join(sorted(OPS))}, Conv, Gemm",
                fix="calibrate without --qat",
            )


def require_tensor(value: object) -> Tensor:
    """Return `value`, which a well-formed graph never leaves out."""
    assert isinstance(value, Tensor)
    return value


def uneven_pads(attributes: Attributes) -> tuple[int, ...]:
    """Return a convolution's pads as `F.pad` takes them; all 0 where the module itself pads."""
    pads = attributes.get("pads", [0, 0, 0, 0])
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return (0,) * len(pads)
    return tuple(n for axis in reversed(range(half)) for n in (pads[axis], pads[axis + half]))


def _convolution(attributes: Attributes, weight: Tensor, *, bias: bool) -> nn.Module:
    pads = attributes.get("pads", [0, 0, 0, 0])
    even = not any(uneven_pads(attributes))
    groups = attributes.get("group", 1)
    return nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=tuple(attributes.get("strides", [1, 1])),
        padding=tuple(pads[: len(pads) // 2]) if even else 0,
        dilation=tuple(attributes.get("dilations", [1, 1])),
        groups=groups,
        bias=bias,
    )
