"""Inlines model functions, so that a file opens everywhere.

The nodes of our operators carry tags (`finedge.graph.tags`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from finedge.errors import BundleError
from finedge.graph.constants import STANDARD, Constants, Shapes
from finedge.graph.tags import ATTRIBUTES, NODE, OP, READS, VERSION, WRITES, copied, tag
from finedge.ops import DOMAIN, OPS

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

LEAST_IR = 10  # the first with metadata on nodes
# Calls inside functions inside functions: a file of a few hundred bytes can ask for 2^100 nodes.
MOST_NODES, MOST_LEVELS = 100_000, 8
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
    kept = [
        o
        for o in inlined.opset_import
        if o.domain in STANDARD or any(n.domain == o.domain for n in inlined.graph.node)
    ]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    inlined.ir_version = max(inlined.ir_version, LEAST_IR)
    return inlined


class _Calls:
    """Replaces the calls of a graph, level by level."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.functions = {_key(f): f for f in model.functions}
        self.types, self.shapes = _values(model)
        self.names = {n.name for n in self.graph.node}

    def expand(self) -> bool:
        """Replace every call by the nodes of its function; return whether there was one."""
        replaced = False
        nodes: list[NodeProto] = []
        for node in self.graph.node:
            function = self.functions.get(_called(node))
            replaced = replaced or function is not None
            nodes += [node] if function is None else self._body(node, function)
        copies = [copied(n) for n in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        return replaced

    def _body(self, call: NodeProto, function: FunctionProto) -> list[NodeProto]:
        body = _Body(call, function, self._name(call), self.types, self.shapes)
        nodes = [node for i, node in enumerate(function.node) for node in body.node(node, i)]
        read = {name for node in nodes for name in node.input}
        self.graph.initializer.extend(t for t in body.constants.tensors() if t.name in read)
        return nodes

    def _name(self, call: NodeProto) -> str:
        """Return the call's name, or one that no node has."""
        base = call.name or f"{call.op_type} -> {next(iter(call.output), '')}"
        name, number = base, 1
        while f"{name}/" in self.names:
            number += 1
            name = f"{base}#{number}"
        self.names.add(f"{name}/")
        return name


class _Body:
    """The nodes of one call; inside tensors get names of their own."""

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
        self.constants = Constants(types, shapes)
        defaults = {a.name: a for a in function.attribute_proto}
        self.given = {**defaults, **{a.name: a for a in call.attribute}}
        self.actual = dict.fromkeys(function.input, "")  # what a call leaves out is optional
        self.actual |= dict(zip(function.input, call.input, strict=False))
        self.actual |= dict(zip(function.output, call.output, strict=False))
        op = OPS.get(call.op_type) if call.domain == DOMAIN else None
        shown = (
            op.inputs
            if op is not None and len(op.inputs) == len(function.input)
            else tuple(function.input)
        )
        self.shown = dict(zip(function.input, shown, strict=True))
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
            tag(new, {**self.tags, **self._ends(node)})
        yield new

    def _ends(self, node: NodeProto) -> dict[str, str]:
        reads = ",".join(self.shown.get(name, "") for name in node.input)
        writes = next(
            (
                str(list(self.function.output).index(name))
                for name in node.output
                if name in self.function.output
            ),
            None,
        )
        return {
            **({READS: reads} if reads.strip(",") else {}),
            **({} if writes is None else {WRITES: writes}),
        }

    def _actual(self, name: str) -> str:
        if name and name not in self.actual:
            self.actual[name] = f"{self.name}/{name}"
        return self.actual.get(name, "")

    def _set_attributes(self, node: NodeProto) -> None:
        """Write the call's attributes where the body refers to them; a missing one is left out."""
        kept = []
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                value_of_call = self.given.get(attribute.ref_attr_name)
                if value_of_call is None:
                    continue
                value = copied(value_of_call)
                value.name = attribute.name
                kept.append(value)
            else:
                kept.append(copied(attribute))
        del node.attribute[:]
        node.attribute.extend(kept)


def _values(model: ModelProto) -> tuple[dict[str, int], Shapes]:
    """Return the known element types and shapes by tensor; None is an open size."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.input, *graph.output)}
    dims = {name: kind.shape.dim for name, kind in values.items() if kind.HasField("shape")}
    shapes = {
        name: tuple(d.dim_value if d.HasField("dim_value") else None for d in found)
        for name, found in dims.items()
    }
    stored = {t.name: t.data_type for t in graph.initializer}
    return {**{name: kind.elem_type for name, kind in values.items()}, **stored}, shapes


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
    for _ in range(MOST_LEVELS):  # each round adds the functions whose calls are all known
        for key, function in functions.items():
            calls = [k for k in map(_called, function.node) if k in functions]
            if key not in sizes and all(k in sizes for k in calls):
                sizes[key] = len(function.node) + sum(sizes[k] for k in calls)
        if len(sizes) == len(functions):
            break
    if len(sizes) < len(functions):
        name = next(f.name for key, f in functions.items() if key not in sizes)
        raise BundleError(
            f"function {name} calls itself, or functions {MOST_LEVELS} levels deep",
            fix="export again",
        )
    total = sum(sizes.get(_called(node), 1) for node in model.graph.node)
    if total > MOST_NODES:
        raise BundleError(
            f"the functions of the model make {total} nodes",
            expected=f"at most {MOST_NODES}",
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
        if opset.domain in STANDARD and opset.version != opsets.get(opset.domain, opset.version):
            what = f"function {function.name} is written for opset {opset.version}"
            raise BundleError(
                what,
                expected=f"the model's, {opsets[opset.domain]}",
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
    return (
        [_plain(v) for v in value]
        if isinstance(value, Iterable) and not isinstance(value, str)
        else value
    )
