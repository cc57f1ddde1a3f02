"""Recipes as TOML files, found by name or path. Their values can be written as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomllib

from finedge.document import read_text_file
from finedge.errors import DataError, UsageError, nearest

RECIPES = Path(__file__).with_name("recipes")
DEFAULT_RECIPE = "fine"  # a CPU is enough for it
MAX_BYTES = 1 << 20  # the shipped ones have about 1 KiB
MAX_DEPTH = 16  # levels of tables and lists
INTEGERS = 2**63  # TOML's own limit of whole numbers
PREVIEW = 60  # characters of a key in an error


def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes."""
    return tuple(sorted(p.stem for p in RECIPES.glob("*.toml")))


def read_toml(name: str) -> dict[str, Any]:
    """Return the values of a recipe: a shipped one by name, or a TOML file by path.

    Raises:
        UsageError: no such recipe, no readable text, not TOML, or a value that JSON does not have.
    """
    path = RECIPES / f"{name}.toml" if name in recipe_names() else Path(name)
    try:
        text = read_text_file(
            path,
            error=DataError,
            fix="write the recipe as UTF-8",
            max_bytes=MAX_BYTES,
        )
        values = tomllib.loads(text)
    except FileNotFoundError:
        fix = "name a shipped recipe or a TOML file"
        raise UsageError(
            f"unknown recipe '{name}'",
            expected=nearest(name, recipe_names()),
            fix=fix,
        ) from None
    except DataError as error:
        raise UsageError(error.what, expected=error.expected, fix=error.fix) from error
    except OSError as error:
        raise UsageError(f"recipe {name}: {error.strerror}", expected="a TOML file") from error
    except RecursionError:
        raise UsageError(
            f"{path} is nested too deeply",
            expected=f"at most {MAX_DEPTH} levels",
        ) from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise UsageError(f"{path} is not TOML: {error}") from error
    require_plain(values)
    return values


def require_plain(values: Mapping[str, Any], *, at: str = "") -> None:
    """Refuse what run.json cannot hold: dates, NaN, infinity, large integers, deep nesting.

    Raises:
        UsageError: the text names the place, such as `options.dropout`.
    """
    pending: list[tuple[str, Any, int]] = [(at, values, 0)]
    while pending:
        place, value, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise UsageError(
                f"recipe value {place} is nested too deeply",
                expected=f"at most {MAX_DEPTH} levels",
            )
        if isinstance(value, Mapping):
            pending += [
                (f"{place}.{str(key)[:PREVIEW]}".lstrip("."), item, depth + 1)
                for key, item in value.items()
            ]
        elif isinstance(value, list | tuple):
            pending += [(f"{place}[{i}]", item, depth + 1) for i, item in enumerate(value)]
        elif not _is_plain(value):
            raise UsageError(
                f"recipe value {place} = {_preview(value)}",
                expected="text, true, false, or a finite number of 64 bits",
            )


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() or not any(0xD800 <= ord(letter) < 0xE000 for letter in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -INTEGERS <= value < INTEGERS
    return value is None


def _preview(value: object) -> str:
    # Python refuses to print thousands of digits.
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return ascii(value)[:PREVIEW]
