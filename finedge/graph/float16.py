"""float32 ONNX into float16 ONNX, with Casts only where a float16 and a float32 node meet.

Types are decided value by value. onnxruntime.transformers.float16 (1.31) was read and is not used:

- it clamps weights into float16's range;
- it rounds a constant that a float32 node shares with a float16 one;
- it leaves the float attribute of a Constant node;
- it appends its Casts after the nodes that read them.
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
from finedge.graph.constants import constant_value
from finedge.graph.edit import copied, drop_unread_initializers
from finedge.graph.walk import is_standard

log = logging.getLogger(__name__)

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST = 65504.0
SMALLEST = 2.0**-14  # below it float16 is subnormal and loses bits
# Inputs that are float32 in every version of an op: the roi and the scales of Resize.
ALWAYS_FLOAT = {"Resize": (1, 2)}
VARIANCE = 4  # the input of a BatchNormalization


def convert_float16(model: ModelProto, *, keep: Collection[str]) -> ModelProto:
    """Return a copy of `model` that computes in float16; graph inputs and outputs keep their types.

    Nodes of other domains must accept float16, and so must their functions: ours cast their
    constants like an input. Nothing is clamped. A node with a constant that float16 cannot hold
    stays float32, which is logged: one beyond 65504, or a subnormal one as a whole.

    Args:
        model: every node has a name of its own (see `with_unique_names`); no subgraphs.
        keep: names of nodes that stay float32, for example those of `keep_float32`.

    Raises:
        FinedgeError: no node or several nodes have a name of `keep`, or a node holds a subgraph.

    Examples:
        >>> from finedge.graph.edit import with_unique_names
        >>> from finedge.graph.keep_float32 import keep_float32
        >>> from finedge.graph.onnx_file import read_model
        >>> named = with_unique_names(read_model(Path("birds.finedge/model.fp32.onnx")))
        >>> half = convert_float16(named, keep=keep_float32(named.graph))
    """
    copy = copied(model)
    _check(copy.graph, keep)
    converter = _Converter(copy.graph, float_values(model), frozenset(keep))
    for node in list(copy.graph.node):
        converter.convert(node)
    converter.finish()
    for function in copy.functions:
        del function.value_info[:]  # types of the float32 model
    return copy


def float_values(model: ModelProto) -> frozenset[str]:
    """Return the names of all float32 tensors of the graph.

    Outputs of nodes of other domains without a function count as float32.

    Raises:
        FinedgeError: the type of a tensor cannot be inferred.
    """
    copy = copied(model)
    typed = {v.name for v in (*copy.graph.value_info, *copy.graph.output)}
    bodies = {(f.domain, f.name) for f in copy.functions}
    for node in copy.graph.node:
        if not is_standard(node) and (node.domain, node.op_type) not in bodies:
            copy.graph.value_info.extend(
                helper.make_tensor_value_info(name, FLOAT, None)
                for name in node.output
                if name and name not in typed
            )
    graph = onnx.shape_inference.infer_shapes(copy).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    untyped = [name for node in graph.node for name in node.output if name and not types.get(name)]
    if untyped:
        raise FinedgeError(
            f"the type of tensor '{untyped[0]}' cannot be inferred",
            expected="a valid ONNX graph",
            fix="onnx.checker.check_model(model, full_check=True)",
        )
    types |= {t.name: t.data_type for t in graph.initializer}
    return frozenset(name for name, element_type in types.items() if element_type == FLOAT)


def _check(graph: GraphProto, keep: Collection[str]) -> None:
    names = Counter(n.name for n in graph.node)
    for name in keep:
        if names[name] != 1:
            raise FinedgeError(
                f"{names[name]} nodes are named '{name}'",
                expected="one node for each name to keep",
                fix="with_unique_names(model)",
            )
    for node in graph.node:
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise FinedgeError(
                f"node '{node.name}' ({node.op_type}) holds a subgraph",
                expected="a graph without control flow",
                fix="export without it",
            )


class _Converter:
    """Rewrites the nodes of a graph in their order.

    `types` holds the type in which each float value is made so far.
    """

    def __init__(self, graph: GraphProto, floats: frozenset[str], keep: frozenset[str]) -> None:
        self.graph, self.floats, self.keep = graph, floats, keep
        self.outputs = {o.name for o in graph.output}
        self.constants = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == FLOAT
        }
        self.types = dict.fromkeys((i.name for i in graph.input), FLOAT)
        self.casts: set[str] = set()
        self.stored: dict[str, TensorProto] = {
            t.name: t for t in graph.initializer if t.data_type != FLOAT
        }
        self.nodes: list[NodeProto] = []

    def convert(self, node: NodeProto) -> None:
        """Take the next node: it reads and makes float16, or float32 where it must.

        It must where it is kept, makes floats of none, or has a constant that does not fit.
        """
        if self._is_constant(node):
            return
        fixed = ALWAYS_FLOAT.get(node.op_type, ()) if is_standard(node) else ()
        stays = node.name in self.keep or self._generates(node) or self._misfits(node, fixed)
        element_type = FLOAT if stays else HALF
        for i, name in enumerate(node.input):
            if name in self.floats:
                node.input[i] = self._read(name, FLOAT if i in fixed else element_type)
        for i, name in enumerate(node.output):
            if name in self.floats:
                self.types[name] = element_type
                node.output[i] = self._name(name, element_type)
        if element_type == HALF and node.op_type == "Cast":
            _cast_to_half(node)
        self.nodes.append(node)

    def finish(self) -> None:
        """Make the graph outputs float32 again; write nodes, constants and types back."""
        for output in self.graph.output:
            if output.name in self.floats:
                self._read(output.name, FLOAT)
        for info in self.graph.value_info:
            if self.types.get(info.name) == HALF:
                info.type.tensor_type.elem_type = HALF
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(self.stored.values())
        drop_unread_initializers(self.graph)

    def _is_constant(self, node: NodeProto) -> bool:
        """Note a float constant, also through the CastLike of an inlined body; drop its node."""
        result = node.output[0]
        if result not in self.floats or result in self.outputs or not is_standard(node):
            return False
        if node.op_type == "Constant":
            self.constants[result] = constant_value(node)
        elif node.op_type == "CastLike" and node.input[0] in self.constants:
            self.constants[result] = self.constants[node.input[0]]
        else:
            return False
        return True

    def _generates(self, node: NodeProto) -> bool:
        """Tell whether a node makes floats of none: ConstantOfShape, EyeLike.

        It stays as it is, and is read through a Cast.
        """
        return node.op_type != "Cast" and self.floats.isdisjoint(node.input)

    def _misfits(self, node: NodeProto, fixed: Collection[int]) -> bool:
        """Tell whether a node reads a constant that float16 cannot hold, and log it."""
        for i, name in enumerate(node.input):
            if name not in self.constants or i in fixed:
                continue
            if _fits(self.constants[name], node, i):
                continue
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

    def _read(self, name: str, element_type: int) -> str:
        """Return the name of a float value in a type, after a Cast where it is made in another."""
        if name in self.constants:
            return self._store(name, element_type)
        result = self._name(name, element_type)
        if self.types[name] != element_type and result not in self.casts:
            self.casts.add(result)
            source = self._name(name, self.types[name])
            cast = helper.make_node(
                "Cast", [source], [result], name=f"{result}/cast", to=element_type
            )
            self.nodes.append(cast)
        return result

    def _store(self, name: str, element_type: int) -> str:
        """Keep a constant in a type as an initializer; return its name."""
        result = name if element_type == FLOAT else f"{name}/half"
        dtype = np.float32 if element_type == FLOAT else np.float16
        array = self.constants[name].astype(dtype)
        self.stored.setdefault(result, numpy_helper.from_array(array, result))
        return result

    def _name(self, name: str, element_type: int) -> str:
        # A graph output's name belongs to its float32 form.
        own_type = FLOAT if name in self.outputs else self.types[name]
        if element_type == own_type:
            return name
        return f"{name}/{'half' if element_type == HALF else 'float'}"


def _fits(constant: NDArray[np.float32], node: NodeProto, index: int) -> bool:
    """Tell whether float16 holds a constant: its largest magnitude must be normal.

    A variance is divided by, so its smallest magnitude must be normal too.
    """
    size = np.abs(constant[constant != 0])
    if node.op_type == "BatchNormalization" and index == VARIANCE:
        return bool(size.size == constant.size and size.min() >= SMALLEST and size.max() <= LARGEST)
    return not size.size or bool(SMALLEST <= size.max() <= LARGEST)


def _cast_to_half(cast: NodeProto) -> None:
    for attribute in cast.attribute:
        if attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
