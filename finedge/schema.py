"""Decodes plain data (JSON, TOML) into frozen dataclasses; an error names the place of the fault.

No library does this here: boards with JetPack's Python get no extra package, and `finedge --help`
must import nothing heavy. The decoder supports the types of finedge's records: dataclasses,
TypedDicts, tuples, mappings, Literals, unions, and `Annotated` with constraints.
"""

from __future__ import annotations

import reprlib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from finedge.errors import FinedgeError

T = TypeVar("T")
MAX_SHOWN = 60  # characters of a name in a place


@dataclass(frozen=True)
class Constraint:
    """A condition on a value beyond its type; `expected` is the condition in words."""

    is_met: Callable[[Any], bool]
    expected: str


class Misfit(ValueError):
    """Data that does not fit: its place (`spec.preprocess.crop`), its value, and what is expected.

    `unknown` is the name of a field that this version does not have, else "".
    """

    def __init__(self, at: str, value: object, expected: str, *, unknown: str = "") -> None:
        self.at, self.value, self.expected, self.unknown = at, value, expected, unknown
        place = _join(at, unknown) if unknown else at or "the document"
        super().__init__(f"{place} is {'unknown' if unknown else reprlib.repr(value)}")


def decode(kind: type[T], data: Any, *, at: str = "", strict: bool = False) -> T:
    """Return `data` as a `kind`; an int is accepted for a float, a list for a tuple.

    Args:
        kind: a dataclass, a TypedDict or any other type of the list above.
        data: plain data.
        at: the place of `data` in its file.
        strict: refuse a field that `kind` does not have; otherwise it is ignored.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Crop:
        ...     side: Annotated[int, between(1, 16384)]
        >>> decode(Crop, {"side": 224})
        Crop(side=224)
        >>> decode(Crop, {"side": 0})
        Traceback (most recent call last):
        finedge.schema.Misfit: side is 0

    Raises:
        Misfit: the first value that does not fit.
    """
    value: T = _decode(kind, data, at, strict)
    return value


def between(low: float, high: float, *, unit: str = "") -> Constraint:
    """Return the constraint that a number is in [low, high]."""
    return Constraint(lambda v: low <= v <= high, f"{low:g} to {high:g}{unit and ' ' + unit}")


def at_most(count: int) -> Constraint:
    """Return the constraint that a text, tuple or mapping has at most `count` members."""
    return Constraint(lambda v: len(v) <= count, f"at most {count} members")


def is_digest(text: str) -> bool:
    """Tell whether a text is a sha256 as hex."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def is_plain_name(text: str) -> bool:
    """Tell whether a text is a plain file name: not a path, not hidden, at most 255 bytes."""
    fits = 0 < len(text.encode()) <= 255 and not text.startswith(".")
    return fits and text.isprintable() and not set(text) & set("/\\")


Share = Annotated[float, between(0, 1)]
Count = Annotated[int, between(0, 10**12)]
Digest = Annotated[str, Constraint(is_digest, "a sha256: 64 hex digits")]
PlainName = Annotated[
    str,
    Constraint(
        is_plain_name,
        "a plain file name: no path, not hidden, at most 255 bytes",
    ),
]
Text = Annotated[str, at_most(4096)]


def _decode(kind: Any, data: Any, at: str, strict: bool) -> Any:
    origin = get_origin(kind)
    if origin is Annotated:
        return _annotated(kind, data, at, strict)
    if is_dataclass(kind) or is_typeddict(kind):
        return _record(kind, data, at, strict)
    if origin in (Union, types.UnionType):
        return _union(kind, data, at, strict)
    if origin is tuple:
        return _tuple(kind, data, at, strict)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(kind, data, at, strict)
    return _plain(kind, data, at)


def _plain(kind: Any, data: Any, at: str) -> Any:
    if get_origin(kind) is Literal:
        if any(type(data) is type(allowed) and data == allowed for allowed in get_args(kind)):
            return data
        raise Misfit(at, data, f"one of {', '.join(map(repr, get_args(kind)))}")
    if kind is Any:
        return data
    if kind is type(None):
        if data is None:
            return None
    elif kind is float and type(data) is int:
        return float(data)
    elif type(data) is kind:  # a bool does not count as an int
        return data
    raise Misfit(at, data, WORDS.get(kind, str(kind)))


WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _annotated(kind: Any, data: Any, at: str, strict: bool) -> Any:
    inner, *constraints = get_args(kind)
    value = _decode(inner, data, at, strict)
    for constraint in constraints:
        if not constraint.is_met(value):
            raise Misfit(at, data, constraint.expected)
    return value


def _union(kind: Any, data: Any, at: str, strict: bool) -> Any:
    """Return the first member that fits; else raise the fault with the deepest place."""
    faults: list[Misfit] = []
    for member in get_args(kind):
        try:
            return _decode(member, data, at, strict)
        except Misfit as fault:  # noqa: PERF203 - two members, rarely three
            faults.append(fault)
    deepest = max(faults, key=lambda f: len(f.at))
    if deepest.at != at:
        raise deepest
    raise Misfit(at, data, " or ".join(f.expected for f in faults))


def _tuple(kind: Any, data: Any, at: str, strict: bool) -> tuple[Any, ...]:
    members = get_args(kind)
    if not isinstance(data, list | tuple):
        raise Misfit(at, data, "a list")
    if members[-1] is not Ellipsis:
        if len(data) != len(members):
            raise Misfit(at, data, f"a list of {len(members)}")
        pairs = zip(members, data, strict=True)
    else:
        pairs = zip([members[0]] * len(data), data, strict=True)
    return tuple(_decode(m, v, f"{at}[{i}]", strict) for i, (m, v) in enumerate(pairs))


def _mapping(kind: Any, data: Any, at: str, strict: bool) -> dict[Any, Any]:
    keys, values = get_args(kind)
    if not isinstance(data, Mapping):
        raise Misfit(at, data, "an object of names and values")
    named = ((_join(at, key), key, value) for key, value in data.items())
    return {
        _decode(keys, k, place, strict): _decode(values, v, place, strict) for place, k, v in named
    }


def _record(kind: Any, data: Any, at: str, strict: bool) -> Any:
    types, required = _fields(kind)
    if not isinstance(data, Mapping):
        raise Misfit(at, data, f"an object with {', '.join(types)}")
    for name in sorted(required - set(data)):
        raise Misfit(_join(at, name), None, "a value: it is missing")
    for name in data if strict else ():
        if name not in types:
            raise Misfit(at, data[name], f"of {', '.join(types)}", unknown=str(name))
    values = {n: _decode(k, data[n], _join(at, n), strict) for n, k in types.items() if n in data}
    try:
        return kind(**values)
    except FinedgeError as error:  # a condition on several fields together
        raise Misfit(at, error.what, error.expected) from error


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the types of a record's fields, and the names of those without a default."""
    hints = get_type_hints(kind, include_extras=True)
    if is_typeddict(kind):
        return hints, frozenset(kind.__required_keys__)
    own = [f for f in fields(kind) if f.init]
    needed = (f.name for f in own if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: hints[f.name] for f in own}, frozenset(needed)


def _join(at: str, name: object) -> str:
    return f"{at}.{str(name)[:MAX_SHOWN]}".lstrip(".")
