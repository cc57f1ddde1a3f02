"""From a command line to the call of a typed function.

A usage error repeats arguments, but no secret in them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from finedge.redact import HIDDEN, learn, learn_secret, mask, mask_text
from finedge.sanitize import clean

SECRET_OPTIONS = ("--token",)


def call(function: Callable[..., Any], *, prog: str, arguments: Sequence[str]) -> Any:
    """Call `function` with the values of the arguments; return what it returns.

    Raises:
        SystemExit: 2 for wrong arguments, 0 for --help; its text was printed.
    """
    import tyro

    @functools.wraps(function)
    def read(*args: Any, **options: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **options)

    shown = masked(arguments)
    if shown == list(arguments):
        return tyro.cli(read, prog=prog, args=arguments)()
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            bound = tyro.cli(read, prog=prog, args=arguments)
    except SystemExit as exit_:
        if exit_.code:  # masked, the words fail in the same way: tyro prints that in colour
            tyro.cli(read, prog=prog, args=shown)
            print(clean(errors.getvalue()), file=sys.stderr)
        raise
    return bound()


def masked(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as they may be shown.

    Their secrets are hidden in every later text too.
    """
    shown = []
    for before, word in zip(("", *arguments), arguments, strict=False):
        option, equals, value = word.partition("=")
        if before in SECRET_OPTIONS:
            learn_secret(word)
            shown.append(HIDDEN)
        elif option in SECRET_OPTIONS and equals:
            learn_secret(value)
            shown.append(f"{option}={HIDDEN}")
        elif option.startswith("--") and equals:
            learn(value)
            shown.append(f"{option}={mask(value)}")
        else:
            learn(word)
            shown.append(mask(word))
    return [mask_text(word) for word in shown]
