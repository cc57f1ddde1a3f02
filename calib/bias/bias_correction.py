"""Bias correction: the mean shift of each layer's output is taken from its bias.

Rounding weights and activations moves the mean of an output channel. The shift is measured on
images and subtracted, layer by layer, so that a layer sees the corrected layers before it (Nagel et
al. 2019, arXiv 1906.04721, appendix D).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from finedge.calib.bias.layer_steps import LayerSteps, Outputs
from finedge.graph.edit import drop_unread_initializers, replace_items, with_unique_names
from finedge.graph.inlining import inline
from finedge.graph.patterns import layers
from finedge.graph.walk import producers

Vector = NDArray[np.float64]
# The first of the calibration images, whose activations are in memory at once: at most so many, and
# so many pixels. At 224 x 224 these are 32 images; 64 took over 2 GiB with ResNet-50.
IMAGES = 64
PIXELS = IMAGES * 160 * 160


@dataclass(frozen=True)
class FloatMeans:
    """What a float model computes on the images of the correction.

    Attributes:
        batches: the images, uint8 [N, H, W, 3] each.
        means: the mean of each output channel by layer, over images and positions: float64
            [channels].
    """

    batches: Sequence[NDArray[np.uint8]] = field(repr=False)
    means: Mapping[str, Vector] = field(repr=False)


def float_means(model: onnx.ModelProto, batches: Iterable[NDArray[np.uint8]]) -> FloatMeans:
    """Return the mean outputs of the layers of a float model on the first images.

    Args:
        model: the float model.
        batches: uint8 [N, H, W, 3] each; no more than needed are taken.
    """
    images = _first_images(batches)
    means: dict[str, Vector] = {}

    def keep(layer: str, outputs: Outputs) -> Outputs:
        means[layer] = channel_means(outputs)
        return outputs

    LayerSteps(with_unique_names(inline(model))).run(images, change=keep)
    return FloatMeans(tuple(images), means)


def _first_images(batches: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return the batches with the first images, as many as `IMAGES` and `PIXELS` allow."""
    images: list[NDArray[np.uint8]] = []
    left = IMAGES
    for batch in batches:
        if not images:
            left = min(IMAGES, max(1, PIXELS // (batch.shape[1] * batch.shape[2])))
        images.append(batch[:left])
        left -= len(images[-1])
        if not left:
            break
    return images


def correct_biases(
    model: onnx.ModelProto, target: FloatMeans
) -> tuple[onnx.ModelProto, dict[str, float]]:
    """Return an INT8 file with corrected biases; `model` is not changed.

    A float bias (the form for TensorRT) gets the correction itself. An INT32 bias (the form for
    ONNX Runtime) gets it in steps of its scale: activation scale times weight scale. A layer
    without a bias gets one, in float.

    Args:
        model: an INT8 file.
        target: of the float model that it was made of.

    Returns:
        the model, and the largest correction of each layer, in the unit of its output.
    """
    corrected = with_unique_names(model)
    biases = _Biases(corrected.graph)

    def correct(layer: str, outputs: Outputs) -> Outputs:
        if layer not in target.means or layer not in biases.nodes:
            return outputs
        change = biases.add(layer, target.means[layer] - channel_means(outputs))
        for output in outputs:
            output += _along_channels(change, output.ndim)  # in place: a copy of all is 0.2 GB
        return outputs

    LayerSteps(with_unique_names(model)).run(target.batches, change=correct)
    biases.write()
    return corrected, biases.largest


def channel_means(outputs: Outputs) -> Vector:
    """Return the mean of each channel (axis 1) over all arrays [N, channels, ...]."""
    sums = [o.sum(axis=(0, *range(2, o.ndim)), dtype=np.float64) for o in outputs]
    count: int = sum(o.size for o in outputs) // outputs[0].shape[1]
    total: Vector = np.sum(sums, axis=0)
    return total / count


class _Biases:
    """Adds to the biases of the layers of a graph; `write` makes the graph whole again."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = producers(graph)
        self.nodes = {n.name: n for n in layers(graph) if self._has_stored_weight(n)}
        self.before: dict[str, onnx.NodeProto] = {}  # a new DequantizeLinear by its layer
        self.largest: dict[str, float] = {}

    def add(self, layer: str, change: Vector) -> NDArray[np.float32]:
        """Add `change` [channels] to a bias; return what the stored bias really changed by."""
        node = self.nodes[layer]
        name = node.input[2] if len(node.input) > 2 else ""
        maker = self.makers.get(name)
        if maker is None:
            applied = self._add_float(node, name, change)
        else:
            applied = self._add_integer(node, maker, change)
        self.largest[layer] = float(np.abs(applied).max())
        return applied

    def write(self) -> None:
        """Put new nodes into running order, and remove what no node reads any more."""
        nodes = [
            part
            for node in self.graph.node
            for part in (self.before.get(node.name), node)
            if part is not None
        ]
        read = {name for node in nodes for name in node.input}
        read |= {output.name for output in self.graph.output}
        replace_items(self.graph.node, [n for n in nodes if read.intersection(n.output)])
        drop_unread_initializers(self.graph)

    def _add_float(self, node: onnx.NodeProto, name: str, change: Vector) -> NDArray[np.float32]:
        old = numpy_helper.to_array(self.stored[name]) if name in self.stored else 0.0
        new = np.asarray(old + change, np.float32)
        self._set_input(node, self._store(f"{node.name}/corrected_bias", new))
        applied: NDArray[np.float32] = (new - old).astype(np.float32)
        return applied

    def _add_integer(
        self, node: onnx.NodeProto, maker: onnx.NodeProto, change: Vector
    ) -> NDArray[np.float32]:
        old, scale = (numpy_helper.to_array(self.stored[name]) for name in maker.input[:2])
        limits = np.iinfo(np.int32)
        steps = np.clip(np.rint(old + change / scale), limits.min, limits.max).astype(np.int32)
        values = self._store(f"{node.name}/corrected_bias_int32", steps)
        output = f"{node.name}/corrected_bias"
        new = onnx.helper.make_node(
            "DequantizeLinear", [values, *maker.input[1:]], [output], name=f"{output}/dequantize"
        )
        new.attribute.extend(maker.attribute)
        self.before[node.name] = new
        self._set_input(node, output)
        applied: NDArray[np.float32] = ((steps - old.astype(np.float64)) * scale).astype(np.float32)
        return applied

    def _set_input(self, node: onnx.NodeProto, name: str) -> None:
        node.input[:] = [*node.input[:2], name]

    def _store(self, name: str, array: NDArray[np.generic]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _has_stored_weight(self, node: onnx.NodeProto) -> bool:
        maker = self.makers.get(node.input[1])
        source = node.input[1] if maker is None else maker.input[0]
        return source in self.stored


def _along_channels(vector: NDArray[np.float32], ndim: int) -> NDArray[np.float32]:
    return vector.reshape(1, -1, *[1] * (ndim - 2))
