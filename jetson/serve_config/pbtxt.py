"""Protobuf's text format, as far as config.pbtxt needs it, so that the device needs no schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class EnumName(str):
    """The name of an enum value, which text format writes without quotes."""


def text(message: Mapping[str, Any]) -> str:
    """Return a message in text format.

    Its values are str, EnumName, int and bool. A mapping is a message, a sequence a repeated field.
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for field, value in message.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        for item in value if repeated else (value,):
            if isinstance(item, Mapping):
                yield f"{field} {{"
                yield from (f"  {line}" for line in _lines(item))
                yield "}"
            else:
                yield f"{field}: {_scalar(item)}"


def _scalar(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, EnumName):
        return '"' + "".join(ESCAPES.get(c) or _octal(c) for c in value) + '"'
    return str(value)


def _octal(character: str) -> str:
    """Return a control character as text format escapes it, and any other as it is."""
    return f"\\{ord(character):03o}" if ord(character) < 32 or ord(character) == 127 else character
