"""float32 ONNX into float16 ONNX: typed value by value, Casts only where a float16 and a float32 node meet.

onnxruntime.transformers.float16 (1.31, read, not used) clamps weights into float16's range, rounds a constant that a float32 node shares with
a float16 one, leaves the float attribute of a Constant node, and appends its Casts behind the nodes that read them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from finedge.errors import FinedgeError

log = logging.getLogger(__name__)

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST = 65504.0
SMALLEST = 2.0**-14  # below it float16 is subnormal and loses bits
STANDARD = ("", "ai.onnx")
# Inputs that are float32 in every version of an op: the roi and the scales of Resize.
ALWAYS_FLOAT = {"Resize": (1, 2)}


def convert_float16(model: ModelProto, *, keep: Collection[str]) -> ModelProto:
    """Return a copy of `model` that computes in float16; graph inputs and outputs keep their types.

    Nodes of other domains must accept float16, and so must their functions (ours cast their constants like an input). Nothing is
    clamped: a node with a constant that float16 cannot hold (beyond 65504, or subnormal as a whole) stays float32, which is logged.

    Args:
        model: every node has a name of its own (see `with_names`); no subgraphs.
        keep: names of nodes that stay float32.

    Raises:
        FinedgeError: a name of `keep` is no node's or several nodes', or a node holds a subgraph.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    _check(copy.graph, keep)
    converter = _Converter(copy.graph, float_values(model), frozenset(keep))
    for node in list(copy.graph.node):
        converter.convert(node)
    converter.finish()
    for function in copy.functions:
        del function.value_info[:]  # types of the float32 model
    return copy


def with_names(model: ModelProto) -> ModelProto:
    """Return a copy of `model` in which every node has a name of its own: the inlined bodies of two calls repeat theirs."""
    copy = ModelProto()
    copy.CopyFrom(model)
    taken = {n.name for n in copy.graph.node}
    seen = Counter({"": 1})
    for node in copy.graph.node:
        seen[node.name] += 1
        base, number = node.name or node.op_type, seen[node.name]
        if number > 1:
            while f"{base}#{number}" in taken:
                number += 1
            node.name = f"{base}#{number}"
            taken.add(node.name)
    return copy


def float_values(model: ModelProto) -> frozenset[str]:
    """Return the names of all float32 tensors of the graph; outputs of nodes of other domains without a function count as float32.

    Raises:
        FinedgeError: the type of a tensor cannot be inferred.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    known = {v.name for v in (*copy.graph.value_info, *copy.graph.output)}
    bodies = {(f.domain, f.name) for f in copy.functions}
    for node in copy.graph.node:
        if node.domain not in STANDARD and (node.domain, node.op_type) not in bodies:
            copy.graph.value_info.extend(
                helper.make_tensor_value_info(name, FLOAT, None)
                for name in node.output
                if name and name not in known
            )
    graph = onnx.shape_inference.infer_shapes(copy).graph
    kinds = {
        v.name: v.type.tensor_type.elem_type
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    unknown = [name for node in graph.node for name in node.output if name and not kinds.get(name)]
    if unknown:
        raise FinedgeError(
            f"the type of tensor '{unknown[0]}' cannot be inferred",
            expected="a valid ONNX graph",
            fix="onnx.checker.check_model(model, full_check=True)",
        )
    kinds |= {t.name: t.data_type for t in graph.initializer}
    return frozenset(name for name, kind in kinds.items() if kind == FLOAT)


def _check(graph: GraphProto, keep: Collection[str]) -> None:
    names = Counter(n.name for n in graph.node)
    for name in keep:
        if names[name] != 1:
            raise FinedgeError(
                f"{names[name]} nodes are named '{name}'",
                expected="one node for each name to keep",
                fix="with_names(model)",
            )
    for node in graph.node:
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise FinedgeError(
                f"node '{node.name}' ({node.op_type}) holds a subgraph",
                expected="a graph without control flow",
                fix="export without it",
            )


class _Converter:
    """Rewrites the nodes of a graph in their order; `made` is the type each float value is now made in."""

    def __init__(self, graph: GraphProto, floats: frozenset[str], keep: frozenset[str]) -> None:
        self.graph, self.floats, self.keep = graph, floats, keep
        self.outputs = {o.name for o in graph.output}
        self.constants = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == FLOAT
        }
        self.made = dict.fromkeys((i.name for i in graph.input), FLOAT)
        self.cast: set[str] = set()
        self.stored: dict[str, TensorProto] = {
            t.name: t for t in graph.initializer if t.data_type != FLOAT
        }
        self.nodes: list[NodeProto] = []

    def convert(self, node: NodeProto) -> None:
        """Take the next node: it reads and makes float16 unless it is kept, or has a constant that does not fit."""
        if self._is_constant(node):
            return
        fixed = ALWAYS_FLOAT.get(node.op_type, ()) if node.domain in STANDARD else ()
        kind = (
            FLOAT
            if node.name in self.keep or self._generates(node) or self._misfits(node, fixed)
            else HALF
        )
        for i, name in enumerate(node.input):
            if name in self.floats:
                node.input[i] = self._read(name, FLOAT if i in fixed else kind)
        for i, name in enumerate(node.output):
            if name in self.floats:
                self.made[name] = kind
                node.output[i] = self._name(name, kind)
        if kind == HALF and node.op_type == "Cast":
            _retype(node)
        self.nodes.append(node)

    def finish(self) -> None:
        """Make the graph outputs float32 again and write nodes, constants and types back."""
        for output in self.graph.output:
            if output.name in self.floats:
                self._read(output.name, FLOAT)
        for info in self.graph.value_info:
            if self.made.get(info.name) == HALF:
                info.type.tensor_type.elem_type = HALF
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input} | self.outputs
        self.graph.initializer.extend(t for name, t in self.stored.items() if name in read)

    def _is_constant(self, node: NodeProto) -> bool:
        """Note a float constant (also through the CastLike of an inlined body) and drop its node."""
        result = node.output[0]
        if result not in self.floats or result in self.outputs or node.domain not in STANDARD:
            return False
        if node.op_type == "Constant":
            self.constants[result] = _constant(node)
        elif node.op_type == "CastLike" and node.input[0] in self.constants:
            self.constants[result] = self.constants[node.input[0]]
        else:
            return False
        return True

    def _generates(self, node: NodeProto) -> bool:
        """Tell whether a node makes floats of none (ConstantOfShape, EyeLike): it stays as it is, and is read through a Cast."""
        return node.op_type != "Cast" and self.floats.isdisjoint(node.input)

    def _misfits(self, node: NodeProto, fixed: Collection[int]) -> bool:
        for i, name in enumerate(node.input):
            if (
                name in self.constants
                and i not in fixed
                and not _fits(self.constants[name], node, i)
            ):
                size = np.abs(self.constants[name])
                log.warning(
                    "node '%s' (%s) stays float32: '%s' lies in %.3g..%.3g",
                    node.name,
                    node.op_type,
                    name,
                    size.min(),
                    size.max(),
                )
                return True
        return False

    def _read(self, name: str, kind: int) -> str:
        """Return the name of a float value in a type, after a Cast where it is made in the other."""
        if name in self.constants:
            result = name if kind == FLOAT else f"{name}/half"
            dtype = np.float32 if kind == FLOAT else np.float16
            self.stored.setdefault(
                result, numpy_helper.from_array(self.constants[name].astype(dtype), result)
            )
            return result
        result = self._name(name, kind)
        if self.made[name] != kind and result not in self.cast:
            self.cast.add(result)
            self.nodes.append(
                helper.make_node(
                    "Cast",
                    [self._name(name, self.made[name])],
                    [result],
                    name=f"{result}/cast",
                    to=kind,
                )
            )
        return result

    def _name(self, name: str, kind: int) -> str:
        own = (
            FLOAT if name in self.outputs else self.made[name]
        )  # a graph output's name belongs to its float32 form
        return name if kind == own else f"{name}/{'half' if kind == HALF else 'float'}"


def _fits(constant: NDArray[np.float32], node: NodeProto, index: int) -> bool:
    """Tell whether float16 holds a constant: its largest magnitude must be normal; a variance is divided by, so its smallest too."""
    size = np.abs(constant[constant != 0])
    if node.op_type == "BatchNormalization" and index == 4:
        return bool(size.size == constant.size and size.min() >= SMALLEST and size.max() <= LARGEST)
    return not size.size or bool(SMALLEST <= size.max() <= LARGEST)


def _constant(node: NodeProto) -> NDArray[np.float32]:
    value = helper.get_attribute_value(node.attribute[0])
    return (
        numpy_helper.to_array(value)
        if isinstance(value, TensorProto)
        else np.asarray(value, np.float32)
    )


def _retype(cast: NodeProto) -> None:
    for attribute in cast.attribute:
        if attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
