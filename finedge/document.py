"""Reads JSON from outside: every fault in the text becomes a typed error.

It is stricter than Python's reader. It refuses NaN, Infinity, repeated keys, text that is not
Unicode, deep nesting and huge files.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from finedge.errors import FinedgeError
from finedge.regular_files import read_regular

MIB = 1 << 20
MAX_BYTES = 64 * MIB  # the record of a calibration with 10,000 images takes 1 MiB
MAX_DEPTH = 64  # levels; Python's own limit is about a thousand calls
MAX_DIGITS = 64  # reading an integer takes quadratic time


def read_json(path: Path, *, error: type[FinedgeError], fix: str) -> Any:
    """Return the plain data of a JSON file; numbers are finite, texts are Unicode.

    Raises:
        FileNotFoundError: the file is missing; the caller knows what that means.
        FinedgeError: of the type `error`: the file cannot be read, or is not such JSON. The text
            has the position.
    """
    return parse_json(
        read_text_file(path, error=error, fix=fix), name=str(path), error=error, fix=fix
    )


def read_text_file(
    path: Path,
    *,
    error: type[FinedgeError],
    fix: str,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Return the text of a UTF-8 file, without a byte order mark; raises as `read_json` does."""
    try:
        data = read_regular(path, limit=max_bytes)
    except OSError as problem:
        if not os.path.lexists(path):
            missing = os.strerror(errno.ENOENT)
            raise FileNotFoundError(errno.ENOENT, missing, str(path)) from None
        what, expected = f"{path} cannot be read: {problem.strerror}", "a file"
        if problem.errno == errno.EFBIG:
            what, expected = f"{path} is too large", f"at most {max_bytes // MIB} MiB"
        raise error(what, expected=expected, fix=fix) from problem
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is damaged: {problem}", expected="UTF-8 text", fix=fix) from problem


def parse_json(text: str, *, name: str, error: type[FinedgeError], fix: str) -> Any:
    """Return the plain data of JSON text; an error names it `name`."""
    try:
        data = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
            object_pairs_hook=_refuse_repeated_keys,
        )
        _check_values(data)
    except ValueError as problem:
        raise error(f"{name} is damaged: {problem}", expected="JSON", fix=fix) from problem
    except RecursionError:
        raise _too_deep(name, error=error, fix=fix) from None
    return data


def _too_deep(name: str, *, error: type[FinedgeError], fix: str) -> FinedgeError:
    return error(f"{name} is nested too deeply", expected=f"at most {MAX_DEPTH} levels", fix=fix)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:MAX_DIGITS]} is too large")
    return value


def _parse_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} appears twice")
    return members


def _check_values(data: Any) -> None:
    """Check depth and text of every value, without recursion.

    Raises:
        ValueError: a text is not Unicode.
        RecursionError: the data are nested too deeply.
    """
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, Mapping):
                children += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                children += value
        level = children
    if any(isinstance(value, Mapping | list) for value in level):
        raise RecursionError


def _check_text(text: str) -> None:
    if not text.isascii():
        text.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
