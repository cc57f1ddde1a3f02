"""The `finedge` command: a table of subcommands, each imported only when it is called."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from finedge import __version__, terminal
from finedge.arguments import call, without_json
from finedge.errors import FinedgeError, SystemProblem, UsageError, as_finedge_error, nearest
from finedge.text import CleanFormatter, clean

if TYPE_CHECKING:
    from rich.console import RenderableType

log = logging.getLogger("finedge")

INTERRUPTED = 130
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        target: its function, as `module:function`. It returns plain data: the JSON of a pipe.
        about: one line about it, for `finedge --help`.
        show: the function, as `module:function`, that makes a rich renderable of the result for a
            terminal. Without one, the generic table serves.
        extra: the extra of the package that installs what the function imports.
        for_run: the command that takes over where an argument is the folder of a training run.
    """

    target: str
    about: str
    show: str = "finedge.tables:generic"
    extra: str = ""
    for_run: Command | None = None

    def load(self) -> Callable[..., Any]:
        """Import the function.

        Raises:
            SystemProblem: a package or a system library is missing; the text has the fix.
        """
        try:
            return _imported(self.target)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("finedge"):
                raise
            raise _missing_package(error.name or "?", self.extra) from error
        except ImportError as error:
            raise missing_library(error) from error

    def renderer(self) -> Callable[[Any], RenderableType]:
        """Import what turns a result into what people read."""
        return _imported(self.show)


def _imported(path: str) -> Callable[..., Any]:
    module, function = path.split(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


EVALUATE = "finedge.runtime.evaluate.show:show"
# By stage, as `finedge --help` shows them.
STAGES: dict[str, dict[str, Command]] = {
    "train a model": {
        "data render": Command(
            "finedge.synthetic.command:render",
            "render a fine-grained data set to try things with",
            show="finedge.synthetic.show:show",
        ),
        "data list": Command(
            "finedge.train.data.command:datasets",
            "list the published data sets",
            show="finedge.train.data.show:show_datasets",
        ),
        "data get": Command(
            "finedge.train.data.command:get",
            "download, verify and unpack a published data set",
            show="finedge.train.data.show:show_get",
        ),
        "data check": Command(
            "finedge.train.data.command:check",
            "look for broken files, duplicates across splits and uneven classes",
            show="finedge.train.data.show:show_check",
        ),
        "models": Command(
            "finedge.train.about:models",
            "list the models and the backbones, with their papers and costs",
            show="finedge.train.show:show_models",
            extra="train",
        ),
        "train": Command(
            "finedge.train.command:train",
            "train a classifier on a folder of images",
            show="finedge.train.show:show_train",
            extra="train",
        ),
    },
    "make a bundle": {
        "export": Command(
            "finedge.export.command:export",
            "make a bundle of a run: ONNX files, their parity, a golden frame",
            show="finedge.export.show:show",
            extra="train",
        ),
        "calibrate": Command(
            "finedge.calib.command:calibrate",
            "add the INT8 variants to a bundle",
            show="finedge.calib.show:show",
            extra="calib",
        ),
        "build": Command(
            "finedge.runtime.trt.build.command:build",
            "build TensorRT engines; --dry-run only says what stands in the way",
            show="finedge.runtime.trt.build.show:show",
        ),
        "verify": Command(
            "finedge.runtime.verify.command:verify",
            "compare every stage and name the first that diverges",
            show="finedge.runtime.verify.show:show",
        ),
    },
    "run a bundle": {
        "classify": Command(
            "finedge.runtime.stream.command:classify", "classify photos, a video or a camera"
        ),
        "explain": Command(
            "finedge.runtime.explain.command:explain",
            "draw where a classifier looks: PNG files and a page",
            show="finedge.runtime.explain.show:show",
            extra="report",
        ),
    },
    "measure a bundle": {
        "evaluate": Command(
            "finedge.runtime.evaluate.command:evaluate",
            "accuracy of a run or a bundle on a split",
            show=EVALUATE,
            for_run=Command(
                "finedge.train.evaluate:evaluate",
                "accuracy of a run on a split",
                show=EVALUATE,
                extra="train",
            ),
        ),
        "benchmark": Command(
            "finedge.runtime.benchmark.command:benchmark",
            "accuracy and latency of every variant, interleaved",
            show="finedge.runtime.benchmark.show:show",
        ),
        "report": Command(
            "finedge.runtime.report.command:report",
            "write report.md and report.html of a benchmark",
            show="finedge.runtime.report.show:show",
            extra="report",
        ),
    },
    "deploy a bundle": {
        "doctor": Command(
            "finedge.jetson.doctor.command:doctor",
            "say what this machine can run, and how to fix the rest",
            show="finedge.jetson.doctor.show:show",
        ),
        "deploy": Command(
            "finedge.jetson.deploy.command:deploy",
            "copy a bundle to a board, verify it there, swap it in",
            show="finedge.jetson.deploy.show:show",
        ),
        "serve-config": Command(
            "finedge.jetson.serve_config.command:serve_config",
            "write what Triton Inference Server or DeepStream needs",
            show="finedge.jetson.serve_config.show:show",
        ),
    },
}
COMMANDS = {name: command for stage in STAGES.values() for name, command in stage.items()}


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; return the exit code documented in `finedge.errors`."""
    try:
        open_streams()
        if argv is None:  # the process is ours
            print_bugs_clean()
        return _guarded(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # also while an error was being printed
        return INTERRUPTED


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
        with terminal.json_option(words != arguments):
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
        print(_help())
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
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(
            console=Console(stderr=True), show_path=False, show_time=False
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


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"finedge {__version__}: fine-grained image classifiers, from training to the camera",
        "",
        "usage: finedge COMMAND [options]      finedge COMMAND --help",
    ]
    for stage, commands in STAGES.items():
        lines += ["", stage]
        lines += [f"  {name:<{width}}  {command.about}" for name, command in commands.items()]
    lines += [
        "",
        "On a terminal the results are tables. In a pipe they are JSON, and on a terminal",
        "too with --json, which every command takes. FINEDGE_LOG=DEBUG shows more.",
    ]
    return "\n".join(lines)


def _missing_package(package: str, extra: str) -> SystemProblem:
    name = f"finedge[{extra}]" if extra else "finedge"
    return SystemProblem(f"this command needs the package '{package}'", fix=f"pip install '{name}'")


def missing_library(error: ImportError) -> SystemProblem:
    """Return the error for a package whose shared library is missing.

    It names the Debian package where that is known.
    """
    text = str(error)
    packages = {
        "libGL.so.1": "libgl1",
        "libgthread-2.0.so.0": "libglib2.0-0",
        "libxcb": "libxcb1",
        "libgomp.so.1": "libgomp1",
    }
    debian = next((p for library, p in packages.items() if library in text), "")
    return SystemProblem(
        f"a system library is missing: {text}",
        fix=f"apt-get install {debian}" if debian else "install the library named above",
    )
