"""What our code uses of CUDA's runtime API, read from the source."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
NAME = re.compile(r"cuda[A-Z]\w*")
FACTS = "cudaGetDeviceProperties"


@dataclass(frozen=True)
class Uses:
    """Calls as (function, count of arguments), other names, and the facts read of a device.

    `names` holds constants, enums and members of enums.
    """

    calls: frozenset[tuple[str, int]]
    names: frozenset[str]
    facts: frozenset[str]

    @property
    def functions(self) -> frozenset[str]:
        """The functions, without their arguments."""
        return frozenset(name for name, _ in self.calls)


def uses(folder: Path = ROOT / "runtime") -> Uses:
    """Read every module below `folder`."""
    nodes = [
        node
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    calls = {call for node in nodes if isinstance(node, ast.Call) for call in _calls(node)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names = {name for name in attributes if NAME.fullmatch(name)}
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    facts = {fact for node in functions for fact in _facts(node)}
    return Uses(frozenset(calls), frozenset(names - {name for name, _ in calls}), frozenset(facts))


def _calls(node: ast.Call) -> list[tuple[str, int]]:
    """Return the calls in `api.cudaFree(p)`, `cuda("cudaFree", p)`, `f(g, "cudaFree", p)`."""
    arguments = node.args
    if isinstance(node.func, ast.Attribute) and NAME.fullmatch(node.func.attr):
        return [(node.func.attr, len(arguments))]
    if any(isinstance(argument, ast.Starred) for argument in arguments):
        return []
    return [
        (argument.value, len(arguments) - place - 1)
        for place, argument in enumerate(arguments)
        if isinstance(argument, ast.Constant)
        and isinstance(argument.value, str)
        and NAME.fullmatch(argument.value)
    ]


def _facts(function: ast.FunctionDef) -> set[str]:
    """Return the attributes of the variables that hold a device's properties."""
    variables = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and FACTS in ast.dump(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in variables
    }
