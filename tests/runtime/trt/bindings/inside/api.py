"""What NVIDIA's bindings say about themselves: signatures are in the docstrings of pybind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import tensorrt as trt

# "2. name(self: T, flags: int = 0) -> T", with or without the number and the name.
SIGNATURE = re.compile(r"^(?:\d+\. )?\w*\((?P<parameters>.*)\) -> (?P<result>.+)$", re.MULTILINE)
CLASS = re.compile(r"(\w+)\]*$")
ANY = "*"
# 11.x documents it with pybind's own types.
UNDOCUMENTED = {"get_plugin_registry": "IPluginRegistry"}


@dataclass(frozen=True)
class Signature:
    """One overload. `parameters` has names and types without `self`; the first `required` ones
    have no default."""

    parameters: tuple[tuple[str, str], ...]
    required: int
    result: str

    def takes(self, positional: int, keywords: frozenset[str]) -> bool:
        """Tell whether a call with so many arguments and these keywords fits."""
        names = [name for name, _ in self.parameters]
        if positional > len(names) or not keywords <= set(names[positional:]):
            return False
        return set(names[positional : self.required]) <= keywords


def exists(owner: str, member: str) -> bool:
    """Tell whether `trt.OWNER.MEMBER`, or `trt.MEMBER`, exists."""
    return hasattr(_thing(owner), member) if _thing(owner) is not None else False


def is_writable(owner: str, member: str) -> bool:
    """Tell whether an attribute of an object may be set."""
    found = getattr(_thing(owner), member, None)
    return not isinstance(found, property) or found.fset is not None


def result(owner: str, member: str) -> str:
    """Return the class of what a property holds or a function returns, or ''."""
    if member in UNDOCUMENTED:
        return UNDOCUMENTED[member]
    return next((s.result for s in signatures(owner, member) if s.result), "")


@cache
def signatures(owner: str, member: str) -> tuple[Signature, ...]:
    """Return the overloads of a function, or the getter of a property; () if undocumented."""
    found = getattr(_thing(owner), member, None)
    text = (found.fget if isinstance(found, property) else found).__doc__ or ""
    matches = [m for m in SIGNATURE.finditer(text) if "*args" not in m["parameters"]]
    return tuple(_signature(m["parameters"], m["result"], owner) for m in matches)


def _thing(owner: str) -> Any:
    thing: Any = trt
    for name in owner.split(".")[1:]:
        thing = getattr(thing, name, None)
    return thing


def _signature(text: str, returned: str, owner: str) -> Signature:
    parts = [part for part in _split(text) if part.strip()]
    if owner != "trt":  # the first is self
        parts = parts[1:]
    pairs = [part.partition(":") for part in parts]
    parameters = tuple((name.strip(), _class(kind.partition(" = ")[0])) for name, _, kind in pairs)
    required = sum(" = " not in part for part in parts)
    return Signature(parameters, required, _class(returned))


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(<{") - (character in "])>}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _class(kind: str) -> str:
    """Return the class in "List[tensorrt_bindings.tensorrt.Dims]": a list is its elements."""
    match = CLASS.search(kind.strip())
    name = match[1].removesuffix("_") if match else ""
    # The parser's classes are documented by their C++ names: IParserError.
    candidates = (name, name.removeprefix("I"))
    return next((c for c in candidates if isinstance(getattr(trt, c, None), type)), "")
