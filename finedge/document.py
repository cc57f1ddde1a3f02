"""The one reader of JSON from outside: every fault in the text becomes a typed error.

Stricter than Python's reader: no NaN or Infinity, no key twice, only Unicode, no deep nesting, no
huge file.
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
        FileNotFoundError: there is none; only the caller knows what that means.
        FinedgeError: as `error`: not a readable file, or not such JSON; the text has the place.
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
    """Return the plain data of JSON text; an error calls it `name`."""
    try:
        data = json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
        _look_over(data)
    except ValueError as problem:
        raise error(f"{name} is damaged: {problem}", expected="JSON", fix=fix) from problem
    except RecursionError:
        raise _too_deep(name, error=error, fix=fix) from None
    return data


def _too_deep(name: str, *, error: type[FinedgeError], fix: str) -> FinedgeError:
    return error(f"{name} is nested too deeply", expected=f"at most {MAX_DEPTH} levels", fix=fix)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:MAX_DIGITS]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {double!r} is there twice")
    return members


def _look_over(data: Any) -> None:
    """Look at every value, without recursion; raises `ValueError` or `RecursionError`."""
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, Mapping):
                inside += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                inside += value
        level = inside
    if any(isinstance(value, Mapping | list) for value in level):
        raise RecursionError


def _check_text(text: str) -> None:
    if not text.isascii():
        text.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
