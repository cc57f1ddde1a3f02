"""From a command line to the call of a typed function.

A usage error repeats the arguments, but no secret in them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from finedge.redact import HIDDEN, learn, learn_secret, mask, mask_text
from finedge.sanitize import clean

log = logging.getLogger(__name__)

JSON = "--json"  # of every command
NO_JSON = "--no-json"
JSON_HELP = "Every command takes --json: the result as JSON on a terminal too, as in a pipe."
SECRET_OPTIONS = ("--token",)
# Options that have another name now, by command: the old name and the new one. The old name works
# for one version, with a warning.
RENAMED: dict[str, dict[str, str]] = {
    "calibrate": {"--give-up": "--max-false-rejects"},
}


def call(function: Callable[..., Any], *, prog: str, arguments: Sequence[str]) -> Any:
    """Call `function` with the values of the arguments; return what it returns.

    Args:
        function: has a type for each parameter and a docstring, which becomes the help.
        prog: the command as it is typed, such as `finedge data get`.
        arguments: the words after it.

    Raises:
        SystemExit: 2 for wrong arguments, 0 for --help; its text was printed.
    """
    import tyro

    @functools.wraps(function)
    def read(*args: Any, **options: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **options)

    arguments = renamed(arguments, command=prog.partition(" ")[2])
    shown = masked(arguments)
    if shown == list(arguments):
        return _parsed(read, prog=prog, arguments=arguments)()
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


def _parsed(read: Callable[..., Any], *, prog: str, arguments: Sequence[str]) -> Any:
    import tyro

    try:
        return tyro.cli(read, prog=prog, args=arguments)
    except SystemExit as exit_:
        if not exit_.code:  # the help was printed
            print(JSON_HELP)
        raise


def without_json(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without `--json`, which may stand anywhere.

    `--no-json`, the default, is still taken: `models` and `doctor` had it.
    """
    return [word for word in arguments if word not in (JSON, NO_JSON)]


def renamed(arguments: Sequence[str], *, command: str) -> list[str]:
    """Return the arguments with today's names of the options in `RENAMED`; warn of each old one.

    `--old V`, `--old=V`, `--no-old` and `--old_name` are all known.
    """
    return [_renamed(word, RENAMED.get(command, {})) for word in arguments]


def _renamed(word: str, names: dict[str, str]) -> str:
    old, equals, value = word.partition("=")
    spelled = old.replace("_", "-")
    no = "--no-" if spelled.startswith("--no-") and spelled not in names else ""
    new = names.get(f"--{spelled.removeprefix(no)}" if no else spelled)
    if new is None:
        return word
    new = f"{no}{new.removeprefix('--')}" if no else new
    log.warning("%s is now %s; the old name will go in the next version", old, new)
    return f"{new}{equals}{value}"


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
