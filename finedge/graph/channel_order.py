"""Another order of channels: neighbours whose products, added in 16 bits, seldom leave them.

The order of the channels between two layers is free: the rows of the weights that make them, and
the columns of the weights that read them, are moved alike, and the answers stay the same. So large
weights of one sign get neighbours that are small or of the other sign
(`finedge.graph.pair_sums` says what fits). Layers that read the inside of a block then hardly need
any scaling. Those that read the sum of several blocks share one order, and gain less.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from finedge.graph.walk import is_standard

# Ops that treat every channel alike. A second operand has the same channels, or is one number.
CHANNELWISE = {
    "QuantizeLinear",
    "DequantizeLinear",
    "Relu",
    "Clip",
    "Identity",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Add",
}
# Inputs that are parameters, from this one on.
PARAMETERS = {"QuantizeLinear": 1, "DequantizeLinear": 1, "Clip": 1}
# The cost of a pair is exp((w0 + w1 - 128) / SOFTNESS), summed over all rows and both signs. It is
# a product of two factors, so one matrix product has the costs of all pairs. Of 4, 8, 12, 16 and
# 24, 16 left the least error in an EfficientNet-Lite0: 0.32 of that in the order of the file.
SOFTNESS = 16.0
ROUNDS = 3  # of exchanges between pairs; later ones find almost nothing


@dataclass
class ChannelGroup:
    """Tensors whose channels are the same ones, and the layers that make or read them."""

    writers: list[NodeProto] = field(default_factory=list)
    depthwise: list[NodeProto] = field(default_factory=list)
    readers: list[NodeProto] = field(default_factory=list)


def order_channels(model: ModelProto) -> int:
    """Reorder the channels of a Q/DQ model in place, where that is free; return how many groups.

    Its answers stay the same, but for the order in which layers that stay in float add.
    """
    constants = _Constants(model.graph)
    count = 0
    for group in channel_groups(model.graph, constants):
        rows = np.concatenate([constants.columns(node) for node in group.readers], axis=1)
        order = best_order(rows)
        for node in (*group.writers, *group.depthwise):
            constants.reorder(node, 1, 0, order)
            constants.reorder(node, 2, 0, order)
        for node in group.readers:
            constants.reorder(node, 1, _input_axis(node), order)
        count += 1
    constants.store()
    return count


def best_order(columns: NDArray[np.int8]) -> NDArray[np.intp]:
    """Return an order of channels, int [C], in which neighbours seldom leave 16 bits.

    Args:
        columns: int8 [C, rows], the weights that multiply each channel.
    """
    costs = pair_costs(columns)
    pairs = _exchanged(costs, _greedy_pairs(costs))
    last = np.setdiff1d(np.arange(len(columns)), pairs)
    return np.concatenate([pairs.ravel(), last])


def pair_costs(columns: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the cost of each pair of channels as neighbours, [C, C]; infinite on the diagonal."""
    values = columns.astype(np.float32)
    costs = np.zeros((len(values), len(values)), np.float32)
    for sign in (1, -1):
        factors = np.exp((np.maximum(sign * values, 0) - 64) / SOFTNESS)
        costs += factors @ factors.T
    np.fill_diagonal(costs, np.inf)
    return costs


def _greedy_pairs(costs: NDArray[np.float32]) -> NDArray[np.intp]:
    """Give each channel the cheapest free neighbour, the most expensive channels first."""
    total = np.where(np.isinf(costs), 0, costs).sum(axis=1)
    free = np.ones(len(costs), bool)
    pairs = []
    for first in np.argsort(-total, kind="stable"):
        if free[first] and free.sum() > 1:
            free[first] = False
            second = int(np.where(free, costs[first], np.inf).argmin())
            free[second] = False
            pairs.append((int(first), second))
    return np.array(pairs, np.intp).reshape(-1, 2)


def _exchanged(costs: NDArray[np.float32], pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """Let two pairs exchange channels as long as that is cheaper."""
    pairs = pairs.copy()
    for _ in range(ROUNDS):
        changed = [_exchange(costs, pairs, at) for at in range(len(pairs))]
        if not any(changed):
            break
    return pairs


def _exchange(costs: NDArray[np.float32], pairs: NDArray[np.intp], at: int) -> bool:
    """Exchange channels of one pair with those of the pair that gains most, if any gains."""
    (i, j), first, second = pairs[at], pairs[:, 0], pairs[:, 1]
    before = costs[i, j] + costs[first, second]
    after = np.stack([costs[i, first] + costs[j, second], costs[i, second] + costs[first, j]])
    after[:, at] = np.inf
    kind, other = np.unravel_index(int((before - after).argmax()), after.shape)
    if before[other] - after[kind, other] <= 1e-6 * before[other]:
        return False
    k, m = pairs[other]
    pairs[at], pairs[other] = ((i, k), (j, m)) if kind == 0 else ((i, m), (k, j))
    return True


def channel_groups(graph: GraphProto, constants: _Constants) -> Iterator[ChannelGroup]:
    """Yield the groups of channels whose order is free and matters to some layer."""
    sets = _TensorSets()
    layers: list[tuple[str, str, NodeProto]] = []
    sets.freeze(value.name for value in (*graph.input, *graph.output))
    pooled: set[str] = set()
    for node in graph.node:
        taken, made = constants.activations(node), [name for name in node.output if name]
        kind = _kind(node, constants, pooled)
        if kind == "channelwise" and taken:
            sets.join(*taken, *made)
            if node.op_type == "GlobalAveragePool" or pooled.intersection(taken):
                pooled.update(made)
        elif kind == "depthwise":
            sets.join(taken[0], *made)
            layers.append(("depthwise", taken[0], node))
        elif kind == "layer":
            layers += [("readers", taken[0], node), ("writers", made[0], node)]
            if node.op_type != "Conv":
                sets.freeze(made)
        elif kind == "other":
            sets.freeze((*taken, *made))
    groups: dict[str, ChannelGroup] = defaultdict(ChannelGroup)
    for role, tensor, node in layers:
        if not sets.is_frozen(tensor):
            getattr(groups[sets.root(tensor)], role).append(node)
    yield from (group for group in groups.values() if _matters(group, constants))


def _kind(node: NodeProto, constants: _Constants, pooled: set[str]) -> str:
    """Return how a node treats channels: channelwise, depthwise, layer, constant or other."""
    if not is_standard(node):
        return "other"
    if node.op_type == "Flatten" and pooled.issuperset(node.input):
        return "channelwise"
    if node.op_type in CHANNELWISE and len(node.output) == 1:
        return "channelwise" if constants.has_plain_parameters(node) else _constant(node, constants)
    if not constants.owns(node):
        return "other"
    if node.op_type == "Gemm":
        return "layer" if node.input[0] in pooled else "other"
    weight, groups = constants.value(node, 1), _number(node, "group", default=1)
    if groups == 1:
        return "layer"
    return "depthwise" if weight.shape[1] == 1 and len(weight) == groups else "other"


def _constant(node: NodeProto, constants: _Constants) -> str:
    return "other" if constants.activations(node) else "constant"


def _matters(group: ChannelGroup, constants: _Constants) -> bool:
    """Tell whether a group has a reader with INT8 weights, and one number of channels, even."""
    made = [len(constants.value(n, 1)) for n in (*group.writers, *group.depthwise)]
    read = [constants.value(n, 1).shape[_input_axis(n)] for n in group.readers]
    stored = any(constants.value(n, 1).dtype == np.int8 for n in group.readers)
    return bool(group.writers) and stored and len({*made, *read}) == 1 and read[0] % 2 == 0


def _input_axis(node: NodeProto) -> int:
    """Return the axis of a layer's weights that its input's channels multiply."""
    return 0 if node.op_type == "Gemm" and not _number(node, "transB", default=0) else 1


def _number(node: NodeProto, name: str, *, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


class _TensorSets:
    """Sets of tensors with the same channels, some of them frozen."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._frozen: set[str] = set()

    def root(self, name: str) -> str:
        while (parent := self._parents.get(name, name)) != name:
            name = parent
        return name

    def join(self, first: str, *others: str) -> None:
        for other in others:
            old, new = self.root(other), self.root(first)
            if old in self._frozen:
                self._frozen.add(new)
            self._parents[old] = new

    def freeze(self, names: object) -> None:
        self._frozen.update(self.root(name) for name in names)  # type: ignore[attr-defined]

    def is_frozen(self, name: str) -> bool:
        return self.root(name) in self._frozen


class _Constants:
    """The stored tensors of a graph; those of layers can be reordered."""

    def __init__(self, graph: GraphProto) -> None:
        self._tensors: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self._values: dict[str, NDArray[np.generic]] = {}
        self._makers = {
            node.output[0]: node
            for node in graph.node
            if node.op_type == "DequantizeLinear"
            and node.output
            and node.input[:1]
            and node.input[0] in self._tensors
        }
        self._reads = Counter(name for node in graph.node for name in node.input)
        self._changed: set[str] = set()

    def activations(self, node: NodeProto) -> list[str]:
        """Return the inputs of a node that are computed from the frame."""
        named = node.input[: PARAMETERS.get(node.op_type)]
        return [n for n in named if n and n not in self._tensors and n not in self._makers]

    def has_plain_parameters(self, node: NodeProto) -> bool:
        """Tell whether all constants of a channelwise node are single numbers."""
        others = [n for n in node.input if n and n not in self.activations(node)]
        return all(n in self._tensors and self._read(n).size == 1 for n in others)

    def owns(self, node: NodeProto) -> bool:
        """Tell whether a node is a Conv or Gemm whose weights and bias nothing else reads."""
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 2 or not node.output:
            return False
        if self.activations(node) != list(node.input[:1]):
            return False
        if not all(self._is_own(name) for name in node.input[1:] if name):
            return False
        weight, bias = self.value(node, 1), node.input[2:3]
        if weight.ndim < 3 if node.op_type == "Conv" else weight.ndim != 2:
            return False
        return (
            not any(bias) or self.value(node, 2).shape == weight.shape[:1] or node.op_type == "Gemm"
        )

    def value(self, node: NodeProto, index: int) -> NDArray[np.generic]:
        """Return the stored numbers of an input of a layer."""
        return self._read(self._stored(node.input[index])[0])

    def columns(self, node: NodeProto) -> NDArray[np.generic]:
        """Return what a layer multiplies its input's channels by: [C, rows]; empty in float."""
        weight = np.moveaxis(self.value(node, 1), _input_axis(node), 0)
        kept = weight if weight.dtype == np.int8 else weight[:, :0]
        return kept.reshape(len(weight), -1)

    def reorder(self, node: NodeProto, index: int, axis: int, order: NDArray[np.intp]) -> None:
        """Reorder an axis of an input of a layer, with its scales."""
        if index >= len(node.input) or not node.input[index]:
            return
        values, *scales = self._stored(node.input[index])
        self._values[values] = np.take(self._read(values), order, axis=axis)
        self._changed.add(values)
        maker = self._makers.get(node.input[index])
        for name in scales:
            along = _number(maker, "axis", default=1) if maker else 0
            along %= self._read(values).ndim
            if self._read(name).shape == order.shape and along == axis:
                self._values[name] = self._read(name)[order]
                self._changed.add(name)

    def store(self) -> None:
        """Write the reordered tensors into the graph."""
        for name in self._changed:
            values = np.ascontiguousarray(self._values[name])
            self._tensors[name].CopyFrom(numpy_helper.from_array(values, name))

    def _stored(self, name: str) -> list[str]:
        """Return the initializers of a constant: its numbers, then its scale."""
        return list(self._makers[name].input[:2]) if name in self._makers else [name]

    def _is_own(self, name: str) -> bool:
        if name not in self._makers and name not in self._tensors:
            return False
        stored = self._stored(name)
        plain = [n for n in stored if n in self._tensors]
        shared = [n for n in plain if self._reads[n] > 1 and self._read(n).size > 1]
        return len(plain) == len(stored) and self._reads[name] == 1 and not shared

    def _read(self, name: str) -> NDArray[np.generic]:
        if name not in self._values:
            self._values[name] = numpy_helper.to_array(self._tensors[name])
        return self._values[name]
