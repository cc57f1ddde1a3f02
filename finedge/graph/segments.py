"""A graph cut into segments: run one after another, they compute what the whole graph computes.

The cut follows the graph alone, so that it serves float models and Q/DQ models alike. A segment is
everything upstream of an output, less the segments before it. The last one is the rest.

In a Q/DQ model a map crosses the cut as the integers of its QuantizeLinear. That node stays in the
earlier segment, and the DequantizeLinear after it is copied into each segment that reads it. So the
runtimes fuse the same layers as in the whole graph, and both compute the same integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.constants import constant_names
from finedge.graph.walk import producers, upstream

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def cut(model: ModelProto, outputs: Sequence[str]) -> tuple[ModelProto, ...]:
    """Return the segments of a model: one that ends in each of `outputs`, and the rest.

    A segment's inputs are tensors of the model or outputs of earlier segments, by their names. Its
    outputs are the model's own that it computes, and the tensors that later segments read.

    Args:
        model: its functions inlined; it is not changed.
        outputs: names of graph outputs, in running order.

    Raises:
        BundleError: an output is missing, a segment would be empty, or a tensor at a cut has no
            batch as its first dimension.
    """
    plan = _plan(model.graph, outputs)
    values = _values(model)
    return tuple(_segment(model, plan, index, values=values) for index in range(plan.count))


@dataclass(frozen=True)
class _Plan:
    """Which segment each node belongs to, by the node's first output.

    `shared` nodes are copied into every segment that reads them: constants and DequantizeLinear.
    """

    graph: GraphProto
    places: Mapping[str, int]
    shared: frozenset[str]
    count: int

    def nodes(self, index: int) -> list[NodeProto]:
        """Return the nodes of a segment, with the shared ones that it reads, in running order."""
        own = {
            node.output[0]
            for node in self.graph.node
            if self.places[node.output[0]] == index and node.output[0] not in self.shared
        }
        read = [name for node in self.graph.node if node.output[0] in own for name in node.input]
        copies = upstream(
            self.graph, [*read, *self.returned(index)], through=lambda n: n.output[0] in self.shared
        )
        chosen = own | {node.output[0] for node in copies}
        return [node for node in self.graph.node if node.output[0] in chosen]

    def returned(self, index: int) -> list[str]:
        """Return the graph's own outputs that a segment computes."""
        made = producers(self.graph)
        names = (output.name for output in self.graph.output)
        return [name for name in names if self.places[made[name].output[0]] == index]

    def read(self, index: int) -> list[str]:
        """Return the tensors that a segment reads and does not compute, each once."""
        nodes, constants = self.nodes(index), constant_names(self.graph)
        made = {name for node in nodes for name in node.output}
        read = (name for node in nodes for name in node.input if name)
        return list(dict.fromkeys(n for n in read if n not in made and n not in constants))

    def passed_on(self, index: int) -> list[str]:
        """Return the tensors of a segment that later ones read."""
        made = {name for node in self.nodes(index) for name in node.output}
        later = (name for k in range(index + 1, self.count) for name in self.read(k))
        earlier = {name for k in range(index) for n in self.nodes(k) for name in n.output}
        return [n for n in dict.fromkeys(later) if n in made and n not in earlier]


def _plan(graph: GraphProto, outputs: Sequence[str]) -> _Plan:
    made = producers(graph)
    if missing := [name for name in outputs if name not in made]:
        raise BundleError(f"the model has no output {missing[0]} to cut at", fix="export again")
    places: dict[str, int] = {}
    for index, output in enumerate(outputs):
        before = len(places)
        for node in upstream(graph, [output], through=lambda _: True):
            places.setdefault(node.output[0], index)
        if len(places) == before:
            raise BundleError(
                f"no node lies between output {output} and the exit before it",
                expected="exits in running order",
                fix="leave out one of them",
            )
    for node in graph.node:
        places.setdefault(node.output[0], len(outputs))
        source = made.get(node.input[0]) if node.op_type == QUANTIZE else None
        if source is not None:
            key = node.output[0]
            places[key] = min(places[key], places[source.output[0]])
    return _Plan(graph, places, frozenset(_shared(graph)), len(outputs) + 1)


def _shared(graph: GraphProto) -> Iterator[str]:
    constants = constant_names(graph)
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type == DEQUANTIZE or all(name in constants for name in inputs):
            if node.op_type != DEQUANTIZE:
                constants.update(node.output)
            yield node.output[0]


def _segment(
    model: ModelProto, plan: _Plan, index: int, *, values: Mapping[str, ValueInfoProto]
) -> ModelProto:
    from onnx import ModelProto as Model

    nodes = plan.nodes(index)
    segment = Model(ir_version=model.ir_version, opset_import=model.opset_import)
    segment.graph.name = f"{model.graph.name} segment {index}"
    segment.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    stored = (tensor for tensor in model.graph.initializer if tensor.name in read)
    segment.graph.initializer.extend(stored)
    segment.graph.input.extend(_described(plan.read(index), values))
    names = dict.fromkeys([*plan.returned(index), *plan.passed_on(index)])
    segment.graph.output.extend(_described(names, values))
    return segment


def _values(model: ModelProto) -> Mapping[str, ValueInfoProto]:
    """Return type and shape of every tensor, by its name."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}


def _described(
    names: Iterable[str], values: Mapping[str, ValueInfoProto]
) -> Iterator[ValueInfoProto]:
    for name in names:
        value = values.get(name)
        dims = value.type.tensor_type.shape.dim if value is not None else ()
        if value is None or not dims or dims[0].HasField("dim_value"):
            raise BundleError(
                f"tensor {name} crosses the cut, and its first dimension is not the batch",
                expected="maps and vectors of a batch of any size",
                fix="export without --segments",
            )
        yield value
