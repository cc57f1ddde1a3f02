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
from typing import Any

from finedge import __version__
from finedge.arguments import call
from finedge.errors import FinedgeError, SystemProblem, UsageError, as_finedge_error, nearest
from finedge.sanitize import CleanFormatter, clean

INTERRUPTED = 130
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Command:
    """Where a subcommand lives (`module:function`), one line about it, and the extra that installs what it imports."""

    target: str
    about: str
    extra: str = ""
    for_run: Command | None = None  # takes over where an argument is the folder of a training run

    def load(self) -> Callable[..., Any]:
        """Import the function; a missing package is answered with the extra to install."""
        module, function = self.target.split(":")
        try:
            return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("finedge"):
                raise
            raise _missing_package(error.name or "?", self.extra) from error
        except ImportError as error:
            raise missing_library(error) from error


COMMANDS: dict[str, Command] = {
    "train": Command(
        "finedge.train.command:train", "train a classifier on a folder of images", "train"
    ),
    "models": Command("finedge.train.about:models", "list the models and backbones", "train"),
    "data render": Command(
        "finedge.synthetic.command:render", "render a fine-grained data set to try with"
    ),
    "data list": Command("finedge.train.data.command:datasets", "list the published data sets"),
    "data get": Command(
        "finedge.train.data.command:get", "download, verify and unpack a published data set"
    ),
    "data check": Command(
        "finedge.train.data.command:check",
        "look for broken files, duplicates across splits, uneven classes",
    ),
    "evaluate": Command(
        "finedge.runtime.evaluate.command:evaluate",
        "accuracy of a run or a bundle on a split",
        for_run=Command("finedge.train.evaluate:evaluate", "accuracy of a run on a split", "train"),
    ),
    "export": Command(
        "finedge.export.command:export",
        "make a bundle of a run: ONNX, parity, golden frame",
        "train",
    ),
    "explain": Command(
        "finedge.runtime.explain.command:explain",
        "show where a bundle's classifier looks: PNGs and a page",
        "report",
    ),
    "calibrate": Command(
        "finedge.calib.command:calibrate", "add the INT8 variants to a bundle", "calib"
    ),
    "build": Command(
        "finedge.runtime.trt.build.command:build",
        "build TensorRT engines, or say what stands in the way (--dry-run)",
    ),
    "verify": Command(
        "finedge.runtime.verify.command:verify",
        "compare every stage and name the first that diverges",
    ),
    "classify": Command(
        "finedge.runtime.stream.command:classify", "classify images, video or a camera: JSON lines"
    ),
    "benchmark": Command(
        "finedge.runtime.benchmark.command:benchmark",
        "accuracy and latency of each variant, interleaved",
    ),
    "report": Command(
        "finedge.runtime.report.command:report",
        "write report.md and report.html of a benchmark",
        "report",
    ),
    "deploy": Command(
        "finedge.jetson.deploy.command:deploy",
        "put a bundle on a board over ssh: copied, verified there, swapped in, rolled back if it fails",
    ),
    "serve-config": Command(
        "finedge.jetson.serve_config.command:serve_config",
        "write what Triton Inference Server or DeepStream needs to serve a bundle",
    ),
    "doctor": Command(
        "finedge.jetson.doctor:doctor", "say what this machine can run, and how to mend the rest"
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; return the exit code documented in `finedge.errors`."""
    try:
        open_streams()
        if argv is None:  # the process is ours
            tell_bugs_clean()
        return _guarded(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # also while an error was being printed
        return INTERRUPTED


def open_streams() -> None:
    """Give the process its three standard streams; a closed one becomes the null device.

    Else the next file gets the number of a closed one, and libraries print into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a test's own stream
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def tell_bugs_clean() -> None:
    """Take secrets and control characters out of the tracebacks of bugs, in threads too; the exit code stays 1."""
    sys.excepthook = _tell_bug
    threading.excepthook = lambda told: _tell_bug(told.exc_type, told.exc_value, told.exc_traceback)


def _tell_bug(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    _say(clean("".join(traceback.format_exception(kind, error, trace)).rstrip()))


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def _guarded(arguments: list[str]) -> int:
    """Turn what a command raises into a message on stderr and an exit code.

    Only a bug leaves with a traceback.
    """
    try:
        _emit(_run(arguments))
        sys.stdout.flush()
        return 0
    except FinedgeError as error:
        return _told(error)
    except SystemExit as exit_:  # tyro: usage is 2, help is 0
        return exit_.code if isinstance(exit_.code, int) else 2
    except KeyboardInterrupt:
        _say("finedge: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `finedge classify ... | head`
        _leave_pipe()
        return 0
    except Exception as error:
        known = as_finedge_error(error)
        if known is None:
            raise
        logging.getLogger("finedge").debug("the whole story", exc_info=error)
        return _told(known)


def _told(error: FinedgeError) -> int:
    """Print an error, and its result where it has one; return its exit code."""
    try:
        _emit(error.result)
    except OSError:  # nobody reads, or stdout's disk is full: the message still comes
        _leave_pipe()
    _say(f"finedge: {error}")
    return error.exit_code


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _leave_pipe() -> None:
    """Let what is still in stdout's buffer go nowhere, or the interpreter complains at its end."""
    with contextlib.suppress(OSError, ValueError):
        _to_null(sys.stdout.fileno())


def _run(arguments: list[str]) -> Any:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return None
    if arguments[0] in ("-V", "--version"):
        print(f"finedge {__version__}")
        return None
    name, rest = _split_name(arguments)
    logs_to_stderr()
    command = COMMANDS[name]
    if command.for_run and any(_is_run(word) for word in rest):
        command = command.for_run
    return call(command.load(), prog=f"finedge {name}", arguments=rest)


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


def _emit(result: Any) -> None:
    if result is not None:
        print(json.dumps(result), flush=True)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"finedge {__version__}: fine-grained classifiers, from training to the camera",
        "",
        "usage: finedge COMMAND [options]      finedge COMMAND --help",
        "",
    ]
    lines += [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(lines)


def _missing_package(package: str, extra: str) -> SystemProblem:
    what = f"finedge[{extra}]" if extra else "finedge"
    return SystemProblem(f"this command needs the package '{package}'", fix=f"pip install '{what}'")


def missing_library(error: ImportError) -> SystemProblem:
    """A package is there but a shared library it links is not: name the Debian package where we know it."""
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
