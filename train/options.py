"""Options of a model on the command line: KEY=VALUE."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from finedge.errors import UsageError


def parse_options(words: Iterable[str]) -> dict[str, Any]:
    """Return {KEY: VALUE} of `KEY=VALUE` words.

    VALUE is read as JSON where it is JSON, else it is the text itself. The last value of a key
    counts.

    Raises:
        UsageError: a word without a key or without `=`.
    """
    options = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise UsageError(
                f"--option {word}", expected="KEY=VALUE", fix="for example --option dropout=0.2"
            )
        options[key] = _value(text)
    return options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise UsageError(
            "--option: a value is nested too deeply",
            expected="a number, a text or a short list",
        ) from None
