"""Which provider ran each node of a session, by ONNX Runtime's own profile of a run.

A session's list of providers has those that were loaded, not those that compute. A node that no
other provider takes runs on the CPU, without a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.document import read_json
from finedge.errors import SystemProblem

CPU = "CPUExecutionProvider"
# ONNX Runtime computes shapes on the CPU by design: their nodes give numbers of these types only.
INDEX_TYPES = frozenset(("int64", "int32", "bool"))
MAX_NAMES = 8  # in a text


@dataclass(frozen=True)
class RanNode:
    """A node that ran: `types` are those of its outputs, in ONNX Runtime's words."""

    name: str
    op: str
    provider: str
    types: frozenset[str]

    @property
    def computes_shapes(self) -> bool:
        """Whether it gives only numbers that shapes and indices are made of."""
        return bool(self.types) and self.types <= INDEX_TYPES

    def __str__(self) -> str:
        return f"{self.op} {self.name}"


def read_profile(path: Path) -> tuple[RanNode, ...]:
    """Return the nodes of a profile that ONNX Runtime wrote (Chrome's trace format).

    Raises:
        SystemProblem: it is no such file.
    """
    events = read_json(path, error=SystemProblem, fix="update onnxruntime")
    if not isinstance(events, list):
        raise SystemProblem(f"{path} is no profile", expected="a list", fix="update onnxruntime")
    nodes = [_node(event) for event in events if _is_run(event)]
    return tuple(node for node in nodes if node.provider)


def profiled_nodes(
    run: Callable[[], object], end_profiling: Callable[[], str]
) -> tuple[RanNode, ...]:
    """Run a session once; return the nodes that ran, and delete the profile.

    Args:
        run: runs the session, whose settings enable profiling.
        end_profiling: the session's function; profiling is off afterwards.
    """
    try:
        run()
    finally:
        path = Path(end_profiling())
    try:
        return read_profile(path)
    finally:
        path.unlink(missing_ok=True)


def check_placement(
    nodes: Sequence[RanNode], providers: Sequence[str], *, file: str, reason: str = ""
) -> tuple[RanNode, ...]:
    """Refuse a run in which something other than shapes was computed on the CPU.

    Args:
        nodes: what ran.
        providers: those that should compute; the first has to run a node at least.
        file: the model's name.
        reason: ONNX Runtime's text about it, or "".

    Returns:
        The nodes that compute shapes on the CPU.

    Raises:
        SystemProblem: the text has the nodes and the reason.
    """
    others = tuple(node for node in nodes if node.provider not in providers)
    wrong = [node for node in others if not node.computes_shapes]
    if wrong:
        names = ", ".join(sorted({node.provider for node in wrong}))
        what = f"{len(wrong)} of {len(nodes)} nodes of {file} ran on {names}: {name_nodes(wrong)}"
    elif not any(node.provider == providers[0] for node in nodes):
        what = f"{providers[0]} ran none of the {len(nodes)} nodes of {file}"
    else:
        return others
    raise SystemProblem(
        f"{what}; ONNX Runtime says: {reason}" if reason else what,
        expected=f"every computation on {' or '.join(providers)}",
        fix="finedge doctor; --backend onnxruntime runs on the CPU",
    )


def name_nodes(nodes: Sequence[RanNode]) -> str:
    """Return the names of the first nodes, for a text."""
    names = ", ".join(map(str, nodes[:MAX_NAMES]))
    return f"{names}, ..." if len(nodes) > MAX_NAMES else names


def _is_run(event: Any) -> bool:
    # Version 1.31 writes one event a node; older ones also the waits before and after it.
    is_node = isinstance(event, dict) and event.get("cat") == "Node"
    return is_node and str(event.get("name", "")).endswith("_kernel_time")


def _node(event: dict[str, Any]) -> RanNode:
    arguments = event.get("args")
    if not isinstance(arguments, dict):
        arguments = {}
    types = frozenset(key for entry in arguments.get("output_type_shape", ()) for key in entry)
    name = str(event["name"]).removesuffix("_kernel_time")
    op, provider = str(arguments.get("op_name", "")), str(arguments.get("provider", ""))
    return RanNode(name, op, provider, types)
