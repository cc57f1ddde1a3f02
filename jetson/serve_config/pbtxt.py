"""Protobuf's text format, as far as config.pbtxt needs it, so that the device needs no schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Name(str):
    """A value of an enum: written without quotes."""


def text(message: Mapping[str, Any]) -> str:
    """Return a message in text format: str, Name, int and bool values, mappings for messages, sequences for repeated fields."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for field, value in message.items():
        for one in (
            value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        ):
            if isinstance(one, Mapping):
                yield f"{field} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            else:
                yield f"{field}: {_scalar(one)}"


def _scalar(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Name):
        return '"' + "".join(ESCAPES.get(c) or _octal(c) for c in value) + '"'
    return str(value)


def _octal(character: str) -> str:
    """Return a control character as text format escapes it, and any other as it is."""
    return f"\\{ord(character):03o}" if ord(character) < 32 or ord(character) == 127 else character
