"""Inlines model functions, so that a file opens in every reader.

The nodes of our operators get tags (`finedge.graph.tags`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from finedge.errors import BundleError
from finedge.graph.constants import FoldedConstants
from finedge.graph.edit import copied, replace_items, unused_name
from finedge.graph.sizes import Shapes, shapes_of_values
from finedge.graph.tags import ATTRIBUTES, NODE, OP, READS, VERSION, WRITES, add_tags
from finedge.graph.walk import STANDARD_DOMAINS
from finedge.ops import DOMAIN, OPS

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

MIN_IR = 10  # the first with metadata on nodes
# Calls inside functions inside functions: a file of a few hundred bytes can ask for 2^100 nodes.
MAX_NODES, MAX_LEVELS = 100_000, 8
Key = tuple[str, str, str]  # domain, name, overload


def inline(model: ModelProto) -> ModelProto:
    """Return a copy of `model` without functions, the nodes of our operators tagged.

    A model without functions is returned as it is. Constants of a body become initializers.

    Raises:
        BundleError: a function holds a subgraph, was written for another opset, or the calls make
            more than 100,000 nodes.
    """
    if not model.functions:
        return model
    check_functions(model)
    inlined = copied(model)
    calls = _Calls(inlined)
    while calls.expand():
        pass
    del inlined.functions[:]
    domains = {node.domain for node in inlined.graph.node} | set(STANDARD_DOMAINS)
    replace_items(inlined.opset_import, [o for o in inlined.opset_import if o.domain in domains])
    inlined.ir_version = max(inlined.ir_version, MIN_IR)
    return inlined


class _Calls:
    """Replaces the calls of a graph, level by level."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.functions = {_key(f): f for f in model.functions}
        self.types, self.shapes = _values(model)
        self.call_names: set[str] = set()

    def expand(self) -> bool:
        """Replace every call by the nodes of its function; return whether there was one."""
        replaced = False
        nodes: list[NodeProto] = []
        for node in self.graph.node:
            function = self.functions.get(_called(node))
            replaced = replaced or function is not None
            nodes += [node] if function is None else self._body(node, function)
        replace_items(self.graph.node, nodes)
        return replaced

    def _body(self, call: NodeProto, function: FunctionProto) -> list[NodeProto]:
        body = _Body(call, function, self._name(call), self.types, self.shapes)
        nodes = [node for i, node in enumerate(function.node) for node in body.node(node, i)]
        read = {name for node in nodes for name in node.input}
        self.graph.initializer.extend(t for t in body.constants.tensors() if t.name in read)
        return nodes

    def _name(self, call: NodeProto) -> str:
        """Return the call's name, or one that no other call has."""
        base = call.name or f"{call.op_type} -> {next(iter(call.output), '')}"
        name = unused_name(base, self.call_names) if base in self.call_names else base
        self.call_names.add(name)
        return name


class _Body:
    """The nodes of one call; its inner tensors get names of their own."""

    def __init__(
        self,
        call: NodeProto,
        function: FunctionProto,
        name: str,
        types: dict[str, int],
        shapes: Shapes,
    ) -> None:
        from onnx import helper

        self.call, self.function, self.name = call, function, name
        self.constants = FoldedConstants(types, shapes)
        defaults = {a.name: a for a in function.attribute_proto}
        self.attributes = {**defaults, **{a.name: a for a in call.attribute}}
        self.actual = dict.fromkeys(function.input, "")  # what a call leaves out is optional
        self.actual |= dict(zip(function.input, call.input, strict=False))
        self.actual |= dict(zip(function.output, call.output, strict=False))
        op = OPS.get(call.op_type) if call.domain == DOMAIN else None
        formals = tuple(function.input)  # with a private prefix where the operator is ours
        if op is not None and len(op.inputs) == len(formals):
            formals = op.inputs
        self.formals = dict(zip(function.input, formals, strict=True))
        plain = {a.name: _plain(helper.get_attribute_value(a)) for a in call.attribute}
        version = next(
            (o.version for o in function.opset_import if o.domain == call.domain),
            op.version if op else 1,
        )
        self.tags = {
            OP: call.op_type,
            VERSION: str(version),
            NODE: name,
            ATTRIBUTES: json.dumps(plain),
        }

    def node(self, node: NodeProto, index: int) -> Iterator[NodeProto]:
        """Yield the node as it stands in the graph; nothing for a constant, which is stored."""
        new = copied(node)
        new.name = f"{self.name}/{node.op_type}.{index}"
        self._set_attributes(new)
        new.input[:] = [self._actual(name) for name in node.input]
        new.output[:] = [self._actual(name) for name in node.output]
        if node.output[0] not in self.function.output and self.constants.take(new):
            return
        if self.call.domain == DOMAIN:
            add_tags(new, {**self.tags, **self._ends(node)})
        yield new

    def _ends(self, node: NodeProto) -> dict[str, str]:
        """Return the tags of a node that reads an input or makes an output of the call."""
        reads = ",".join(self.formals.get(name, "") for name in node.input)
        outputs = list(self.function.output)
        writes = [str(outputs.index(name)) for name in node.output if name in outputs]
        reads_tag = {READS: reads} if reads.strip(",") else {}
        return {**reads_tag, **({WRITES: writes[0]} if writes else {})}

    def _actual(self, name: str) -> str:
        if name and name not in self.actual:
            self.actual[name] = f"{self.name}/{name}"
        return self.actual.get(name, "")

    def _set_attributes(self, node: NodeProto) -> None:
        """Write the call's attributes where the body refers to them; a missing one is left out."""
        attributes = []
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                attributes.append(attribute)
            elif attribute.ref_attr_name in self.attributes:
                value = copied(self.attributes[attribute.ref_attr_name])
                value.name = attribute.name
                attributes.append(value)
        replace_items(node.attribute, attributes)


def _values(model: ModelProto) -> tuple[dict[str, int], Shapes]:
    """Return element types and shapes by tensor, as far as they are known."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return types, shapes_of_values(values)


def check_functions(model: ModelProto) -> None:
    """Refuse functions that cannot be inlined, before any library follows their calls.

    Raises:
        BundleError: one calls itself, holds a subgraph, or is of another opset; or all calls make
            more than 100,000 nodes.
    """
    functions = {_key(f): f for f in model.functions}
    opsets = {o.domain: o.version for o in model.opset_import}
    for function in functions.values():
        _check(function, opsets)
    sizes: dict[Key, int] = {}
    for _ in range(MAX_LEVELS):  # each round adds the functions whose calls are all known
        for key, function in functions.items():
            calls = [k for k in map(_called, function.node) if k in functions]
            if key not in sizes and all(k in sizes for k in calls):
                sizes[key] = len(function.node) + sum(sizes[k] for k in calls)
        if len(sizes) == len(functions):
            break
    if len(sizes) < len(functions):
        name = next(f.name for key, f in functions.items() if key not in sizes)
        raise BundleError(
            f"function {name} calls itself, or functions {MAX_LEVELS} levels deep",
            fix="export again",
        )
    total = sum(sizes.get(_called(node), 1) for node in model.graph.node)
    if total > MAX_NODES:
        raise BundleError(
            f"the functions of the model make {total} nodes",
            expected=f"at most {MAX_NODES}",
            fix="export again",
        )


def _check(function: FunctionProto, opsets: Mapping[str, int]) -> None:
    from onnx import AttributeProto

    for node in function.node:
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise BundleError(
                f"function {function.name} holds a subgraph",
                expected="plain nodes",
                fix="export again",
            )
    for opset in function.opset_import:
        version = opsets.get(opset.domain, opset.version)
        if opset.domain in STANDARD_DOMAINS and opset.version != version:
            raise BundleError(
                f"function {function.name} is written for opset {opset.version}",
                expected=f"the model's, {version}",
                fix="export again",
            )


def _key(function: FunctionProto) -> Key:
    return function.domain, function.name, function.overload


def _called(node: NodeProto) -> Key:
    return node.domain, node.op_type, node.overload


def _plain(value: Any) -> Any:
    """Return an attribute's value as JSON has it."""
    if isinstance(value, bytes):
        return value.decode()
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    return [_plain(item) for item in value] if is_list else value
