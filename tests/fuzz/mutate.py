"""Inputs that are nearly right.

They are valid data with a few values replaced, removed or doubled, and texts with a few bytes
changed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import strategies as st

Place = tuple[str | int, ...]

ODD_NUMBERS = [0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e9, 1e308, 2**31, 2**63, 10**40, 999_999_999]
ODD_TEXTS = [
    "",
    " ",
    "a",
    "../x",
    "a/b",
    ".hidden",
    "\0",
    "\n",
    "\ud800",
    "é",
    "日本",
    "x" * 300,
    "NaN",
    "0" * 64,
]
LEAVES = [None, True, False, *ODD_NUMBERS, float("nan"), float("inf"), *ODD_TEXTS]
HOLDERS: list[Any] = [
    [],
    {},
    [[]],
    [{}],
    {"": {}},
    [[[[[]]]]],
    [1, 2],
    ["a"] * 3,
    {"name": "a"},
    {"a": 1, "b": [None]},
]
EDITS = ("replace", "replace", "replace", "remove", "add", "double", "swap")
# A seed gives fifty times as many inputs in the same time as a drawn structure, and its input can
# be made again.
SEEDS = st.integers(0, 2**63)


def places(data: Any, at: Place = ()) -> Iterator[Place]:
    """Yield the place of every value in plain data."""
    yield at
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from places(value, (*at, key))


def find(data: Any, place: Place) -> Any:
    """Return the value at a place."""
    for key in place:
        data = data[key]
    return data


def edited(document: Any, chance: Random) -> Any:
    """Return a copy of plain data after one to three edits."""
    data = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 2, 3))):
        known = list(places(data))
        value = _value(chance)
        data = _edit(data, chance.choice(known), chance.choice(EDITS), value, chance.choice(known))
    return data


def _value(chance: Random) -> Any:
    kind = chance.random()
    if kind < 0.6:
        return chance.choice(LEAVES)
    if kind < 0.8:
        return copy.deepcopy(chance.choice(HOLDERS))
    return chance.choice(
        (chance.uniform(-2, 2), chance.randint(-(2**40), 2**40), noise(chance).decode("latin-1"))
    )


def noise(chance: Random) -> bytes:
    """Return a few random bytes."""
    return chance.randbytes(chance.randint(0, 12))


def _edit(data: Any, place: Place, how: str, value: Any, other: Place) -> Any:
    if not place:
        return value
    around, key = find(data, place[:-1]), place[-1]
    if how == "remove":
        del around[key]
    elif how == "swap":
        around[key] = copy.deepcopy(find(data, other))
    elif how == "double" and isinstance(around, list):
        around += copy.deepcopy(around)
    elif how == "add" and isinstance(around, dict):
        around["later"] = value
    else:
        around[key] = value
    return data


def garbled(data: bytes, chance: Random) -> bytes:
    """Return bytes with a piece changed, removed, doubled or replaced by noise."""
    start = chance.randint(0, len(data))
    stop = min(len(data), start + chance.randint(0, 12))
    odd = (b"", b"[" * 200, b"\xff", b'"', b"NaN", b"\xed\xa0\x80", b"9" * 80, data[start:stop])
    piece = chance.choice((noise(chance), chance.choice(odd)))
    return data[:start] + piece + data[chance.choice((start, stop)) :]


def json_bytes(data: Any) -> bytes:
    """Return JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(data).encode()


def nearly(document: Any, seed: int) -> bytes:
    """Return the file of a document that was changed by its values, by its bytes, or noise."""
    chance = Random(seed)
    kind = chance.random()
    if kind < 0.8:
        return json_bytes(edited(document, chance))
    return garbled(json_bytes(document), chance) if kind < 0.98 else noise(chance)
