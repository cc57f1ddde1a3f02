"""The `finedge` command: streams, exit codes, and where results and errors are printed."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from finedge import __version__, terminal
from finedge.arguments import JSON, call, without_json
from finedge.commands import COMMANDS, Command, overview
from finedge.errors import FinedgeError, UsageError, as_finedge_error, nearest
from finedge.sanitize import CleanFormatter, clean

if TYPE_CHECKING:
    from rich.console import RenderableType

log = logging.getLogger("finedge")

INTERRUPTED = 130
OURS = "finedge-"  # the names of the threads that the package starts
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; return the exit code documented in `finedge.errors`."""
    try:
        open_streams()
        if argv is None:  # the process is ours
            print_bugs_clean()
        code = _guarded(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # also while an error was being printed
        code = INTERRUPTED
    if argv is None:
        exit_past_threads(code)
    return code


def open_streams() -> None:
    """Give the process its three standard streams; a closed one becomes the null device.

    Otherwise the next file gets the number of a closed one, and libraries print into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)
        if getattr(sys, name) is None:
            stream = open(  # noqa: SIM115
                number, mode, encoding="utf-8", errors="backslashreplace", closefd=False
            )
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a test's own stream
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def print_bugs_clean() -> None:
    """Take secrets and control characters out of the tracebacks of bugs, in threads too.

    The exit code of a bug stays 1.
    """
    sys.excepthook = _print_bug
    threading.excepthook = lambda bug: _print_bug(bug.exc_type, bug.exc_value, bug.exc_traceback)


def exit_past_threads(code: int) -> None:
    """End the process at once if one of our threads still runs; otherwise do nothing.

    Such a thread was waited for, but it is inside a camera, a decoder or a model. When it comes
    back to an interpreter that is ending, Python unwinds it through C++, which aborts the process.
    """
    if any(thread.daemon and thread.name.startswith(OURS) for thread in threading.enumerate()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _print_bug(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    _print_error(clean("".join(traceback.format_exception(kind, error, trace)).rstrip()))


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def _guarded(arguments: list[str]) -> int:
    """Turn what a command raises into a message on stderr and an exit code.

    Only a bug leaves with a traceback.
    """
    words = without_json(arguments)
    try:
        with terminal.json_option(JSON in arguments):
            _run(words)
        sys.stdout.flush()
        return 0
    except FinedgeError as error:
        return _report(error)
    except SystemExit as exit_:  # tyro: usage is 2, help is 0
        return exit_.code if isinstance(exit_.code, int) else 2
    except KeyboardInterrupt:
        _print_error("finedge: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `finedge classify ... | head`
        _leave_pipe()
        return 0
    except Exception as error:
        refusal = as_finedge_error(error)
        if refusal is None:
            raise
        log.debug("the traceback", exc_info=error)
        return _report(refusal)


def _report(error: FinedgeError) -> int:
    """Print an error; return its exit code."""
    _print_error(f"finedge: {error}")
    return error.exit_code


def _print_error(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _leave_pipe() -> None:
    """Let what is still in stdout's buffer go nowhere, or the interpreter complains at its end."""
    with contextlib.suppress(OSError, ValueError):
        _to_null(sys.stdout.fileno())


def _run(arguments: list[str]) -> None:
    """Run the subcommand that the arguments name, and print its result or that of its error."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    if arguments[0] in ("-V", "--version"):
        print(f"finedge {__version__}")
        return
    name, rest = _split_name(arguments)
    logs_to_stderr()
    command = COMMANDS[name]
    if command.for_run and any(_is_run(word) for word in rest):
        command = command.for_run
    try:
        result = call(command.load(), prog=f"finedge {name}", arguments=rest)
    except FinedgeError as error:
        try:
            _emit(error.result, command)
        except OSError:  # the reader has gone, or stdout's disk is full: the message still comes
            _leave_pipe()
        raise
    _emit(result, command)


def _is_run(word: str) -> bool:
    try:
        return Path(word, "run.json").is_file()
    except (OSError, ValueError):  # no path at all: too long, or a NUL
        return False


def _split_name(arguments: list[str]) -> tuple[str, list[str]]:
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    raise UsageError(
        f"unknown command '{arguments[0]}'",
        expected=nearest(arguments[0], COMMANDS),
        fix="finedge --help",
    )


def logs_to_stderr() -> None:
    """Send the package's log to stderr: with colours on a terminal, as plain lines elsewhere.

    Raises:
        UsageError: FINEDGE_LOG is no level.
    """
    level = os.environ.get("FINEDGE_LOG", "INFO").upper()
    if level not in LEVELS:
        raise UsageError(f"FINEDGE_LOG={level}", expected=", ".join(LEVELS))
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(
            console=terminal.log_console(), show_path=False, show_time=False
        )
        handler.setFormatter(CleanFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(CleanFormatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("finedge")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


def _emit(result: Any, command: Command) -> None:
    """Print a result on stdout: one line of JSON, or on a terminal what people read."""
    if result is None:
        return
    if terminal.for_people():
        terminal.console().print(_rendered(result, command), crop=False)
    else:
        print(json.dumps(result), flush=True)


def _rendered(result: Any, command: Command) -> RenderableType:
    """Return what people read; the result of an error may hold a part of the fields only."""
    from finedge.tables import generic

    try:
        return command.renderer()(result)
    except (LookupError, TypeError) as error:
        log.debug("%s cannot show this result", command.show, exc_info=error)
        return generic(result)
