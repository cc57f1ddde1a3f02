"""INT8 weights for x86 CPUs without VNNI, which add two products in 16 bits.

Only layers of which two neighbouring weights can leave 16 bits are changed, and only the output
channels of these (`finedge.graph.pair_sums`). Which weights are neighbours depends on the kernel of
ONNX Runtime. Its sources (MLAS: QgemmU8X8KernelAvx2.S, QgemvU8S8KernelAvx2.S, ConvSymKernelAvx2.S,
convsym.cpp, qlinearconv.cc) say, and `tests/runtime/ort/test_saturating_kernels.py` proves:

| layer | order of the sum; neighbours are its elements 2j and 2j + 1 |
| --- | --- |
| Conv, also of several groups | kernel position by kernel position, the group's input channels |
| depthwise Conv, one input and one output channel a group | any: it multiplies in 16 bits and adds in 32: exact |
| Gemm, MatMul | along the reduced axis |

Signed activations have 128 added first: the same kernels, the same limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from finedge.errors import BundleError
from finedge.graph.edit import copied, drop_unread_initializers, replace_items
from finedge.graph.pair_sums import PAIR_LIMIT, fit_rows

SUFFIX = "/16_bit_sums"
DEQUANTIZE = "DequantizeLinear"
LAYERS = ("Conv", "Gemm", "MatMul")
# Any two weights of 64 or less fit.
HALF = PAIR_LIMIT // 2


@dataclass(frozen=True)
class Fitted:
    """A model whose products fit in 16 bits, and what that took.

    Attributes:
        model: the model; it gives the same answers on every CPU.
        scales: layer -> the scale of each output channel, 0.5 to 1. A channel that fits as it was
            has 1.
        cut: how many pairs of weights were cut.
        exact: the layers whose kernels are exact. They are as they were.
    """

    model: ModelProto
    scales: dict[str, NDArray[np.float64]]
    cut: int
    exact: tuple[str, ...]

    @property
    def mean_scale(self) -> float:
        """The mean scale of the output channels of all layers that are not exact."""
        return float(np.mean(np.concatenate(list(self.scales.values())))) if self.scales else 1.0

    @property
    def scaled_share(self) -> float:
        """The share of these output channels that were scaled."""
        if not self.scales:
            return 0.0
        return float(np.mean(np.concatenate(list(self.scales.values())) < 1))


def reduce_range(model: ModelProto) -> Fitted:
    """Return a copy of a Q/DQ model whose INT8 products fit in 16 bits.

    Stored S8 weights w with scale s become about `a w` with scale `s / a`, with one `a` for each
    output channel. INT32 biases and their scales change alike. ONNX Runtime's fused convolution
    takes a bias to be in units of activation scale times weight scale, whatever the bias's own
    scale says.

    Raises:
        BundleError: the model stores no S8 weights, or one with a zero point other than 0.
    """
    copy = copied(model)
    fitting = _Fitting(copy.graph)
    if not fitting.weights:
        raise BundleError(
            "the INT8 file stores no signed 8-bit weights",
            expected="DequantizeLinear on INT8 initializers",
            fix="calibrate again",
        )
    fitting.run()
    return Fitted(copy, fitting.scales, fitting.cut, tuple(fitting.exact))


def kernel_rows(node: NodeProto, weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return a layer's weights as [output channels, K], in the order of the kernel's sum."""
    if node.op_type == "Conv":
        return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
    return weight if _number(node, "transB", default=0) else weight.T


def is_exact(node: NodeProto, weight: NDArray[np.int8]) -> bool:
    """Tell whether a layer's kernel adds in 32 bits: those of depthwise convolutions do."""
    groups = _number(node, "group", default=1)
    return node.op_type == "Conv" and groups == len(weight) > 1 and weight.shape[1] == 1


def _from_rows(
    node: NodeProto, rows: NDArray[np.int8], shape: tuple[int, ...]
) -> NDArray[np.int8]:
    """Undo `kernel_rows`."""
    if node.op_type == "Conv":
        moved = (shape[0], *shape[2:], shape[1])
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), -1, 1))
    return rows if _number(node, "transB", default=0) else np.ascontiguousarray(rows.T)


def _number(node: NodeProto, name: str, *, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


@dataclass
class _Fitting:
    """Rewrites a graph: each layer reads a DequantizeLinear of its own, on smaller values."""

    graph: GraphProto
    scales: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    exact: list[str] = field(default_factory=list)
    cut: int = 0

    def __post_init__(self) -> None:
        self.stored = {t.name: t for t in self.graph.initializer}
        self.makers = {n.output[0]: n for n in self.graph.node if n.op_type == DEQUANTIZE}
        self.weights = {
            name
            for name, node in self.makers.items()
            if self._dtype(node) == TensorProto.INT8
        }
        self.fitted: dict[str, list[NodeProto]] = {}

    def run(self) -> None:
        """Fit the weights of every layer."""
        for node in self.graph.node:
            layer = node.op_type in LAYERS and node.input[1] in self.weights
            for index, name in enumerate(node.input):
                if name in self.weights and not (layer and index == 1):
                    self._fit_unknown(node, index)
            if layer:
                self._fit_layer(node)
        self._insert()
        drop_unread_initializers(self.graph)

    def _fit_layer(self, node: NodeProto) -> None:
        weight = self._weight(node.input[1])
        name = node.name or node.output[0]
        if is_exact(node, weight):
            self.exact.append(name)
            return
        if node.op_type != "Conv" and weight.ndim != 2:
            self._fit_unknown(node, 1)
            return
        one_scale = numpy_helper.to_array(self._scale(node.input[1])).size == 1
        rows = fit_rows(kernel_rows(node, weight), one_scale=one_scale)
        self.scales[name], self.cut = rows.scales, self.cut + rows.cut
        factor = rows.scales[:1] if one_scale else rows.scales
        fitted = _from_rows(node, rows.values, weight.shape)
        if not np.array_equal(fitted, weight) or (factor < 1).any():
            self._replace(node, 1, fitted, factor)
        if (factor < 1).any():
            self._scale_bias(node, factor)

    def _fit_unknown(self, node: NodeProto, index: int) -> None:
        """Halve weights of which it is not known how they are multiplied: 7 bits always fit."""
        weight = self._weight(node.input[index]).astype(np.float64)
        scale = HALF / 127
        halved = np.clip(np.rint(weight * scale), -HALF, HALF).astype(np.int8)
        self.scales[f"{node.name or node.output[0]}:{index}"] = np.full(1, scale)
        self._replace(node, index, halved, np.full(1, scale))

    def _scale_bias(self, node: NodeProto, factor: NDArray[np.float64]) -> None:
        maker = self.makers.get(node.input[2]) if len(node.input) > 2 else None
        if maker is None or self._dtype(maker) != TensorProto.INT32:
            return
        bias = numpy_helper.to_array(self.stored[maker.input[0]])
        scaled = np.rint(bias * factor).astype(np.int32)
        self._replace(node, 2, scaled, factor)

    def _replace(
        self, node: NodeProto, index: int, values: NDArray[np.generic], factor: NDArray[np.float64]
    ) -> None:
        """Let an input of a layer come from other stored values, with a scale of 1/factor."""
        maker = copied(self.makers[node.input[index]])
        scale = numpy_helper.to_array(self.stored[maker.input[1]])
        larger = (scale / factor.reshape(scale.shape)).astype(scale.dtype)
        base = f"{node.name or node.output[0]}/{index}{SUFFIX}"
        maker.input[0] = self._store(base, values)
        maker.input[1] = self._store(f"{base}/scale", larger)
        maker.name, maker.output[0] = f"{base}/dequantize", f"{base}/float"
        node.input[index] = maker.output[0]
        self.fitted.setdefault(node.output[0], []).append(maker)

    def _insert(self) -> None:
        """Put the new nodes before their layers, and drop the old ones that nothing reads."""
        nodes = [n for node in self.graph.node for n in (*self.fitted.get(_output(node), ()), node)]
        read = {name for node in nodes for name in node.input}
        read |= {output.name for output in self.graph.output}
        replace_items(
            self.graph.node,
            [n for n in nodes if n.op_type != DEQUANTIZE or n.output[0] in read],
        )

    def _store(self, name: str, values: NDArray[np.generic]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _dtype(self, node: NodeProto) -> int:
        tensor = self.stored.get(node.input[0])
        return tensor.data_type if tensor else TensorProto.UNDEFINED

    def _scale(self, name: str) -> TensorProto:
        return self.stored[self.makers[name].input[1]]

    def _weight(self, name: str) -> NDArray[np.int8]:
        maker = self.makers[name]
        zero = maker.input[2] if len(maker.input) > 2 else ""
        if zero and np.any(numpy_helper.to_array(self.stored[zero])):
            raise BundleError(
                f"the weight {maker.input[0]} has a zero point other than 0",
                expected="symmetric INT8 weights",
                fix="calibrate again",
            )
        return numpy_helper.to_array(self.stored[maker.input[0]])


def _output(node: NodeProto) -> str:
    return node.output[0] if node.output else ""
