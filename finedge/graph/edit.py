"""Small edits that every rewrite needs: copies, unique names, unread initializers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Message = TypeVar("Message", bound=Any)


def copied(message: Message) -> Message:
    """Return a copy of a protobuf message."""
    copy: Message = type(message)()
    copy.CopyFrom(message)
    return copy


def replace_items(field: Any, items: Iterable[Any]) -> None:
    """Let a repeated field hold `items`, which may be some of its own."""
    copies = [copied(item) for item in items]
    del field[:]
    field.extend(copies)


def with_unique_names(model: ModelProto) -> ModelProto:
    """Return a copy of `model` in which each node has a name of its own.

    The first node of a name keeps it; the next ones become NAME#2, NAME#3. A node without a name
    gets the name of its op. Inlined bodies of two calls repeat their names.
    """
    copy = copied(model)
    names = {node.name for node in copy.graph.node}
    uses = Counter({"": 1})
    for node in copy.graph.node:
        uses[node.name] += 1
        if uses[node.name] > 1:
            base = node.name or node.op_type
            node.name = unused_name(base, names, first=uses[node.name])
            names.add(node.name)
    return copy


def unused_name(base: str, names: Collection[str], *, first: int = 2) -> str:
    """Return BASE#N with the smallest N >= `first` that is not in `names`."""
    return next(name for n in count(first) if (name := f"{base}#{n}") not in names)


def drop_unread_initializers(graph: GraphProto) -> None:
    """Remove the initializers that no node reads and the graph does not return."""
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) != len(graph.initializer):
        replace_items(graph.initializer, kept)
