"""Words KEY=VALUE on the command line: options of a model, and keys of a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from finedge.errors import UsageError

EXAMPLES = {"--option": "dropout=0.2", "--set": "label_smoothing=0"}


def parse_options(words: Iterable[str], *, flag: str) -> dict[str, Any]:
    """Return {KEY: VALUE} of `KEY=VALUE` words.

    VALUE is read as JSON where it is JSON, else it is the text itself. The last value of a key
    counts. `flag` is the option's name, for the errors.

    Raises:
        UsageError: a word without a key or without `=`.
    """
    options = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise UsageError(
                f"{flag} {word}", expected="KEY=VALUE", fix=f"for example {flag} {EXAMPLES[flag]}"
            )
        options[key] = _value(text, flag=flag)
    return options


def _value(text: str, *, flag: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise UsageError(
            f"{flag}: a value is nested too deeply",
            expected="a number, a text or a short list",
        ) from None
