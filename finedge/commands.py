"""The table of subcommands: where each lives, and what shows its result on a terminal."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finedge import __version__
from finedge.errors import SystemProblem

if TYPE_CHECKING:
    from rich.console import RenderableType


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
            "find broken files, duplicates across splits, uneven classes",
            show="finedge.train.data.show:show_check",
        ),
        "models": Command(
            "finedge.train.listing.command:models",
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
        "sweep": Command(
            "finedge.calib.sweep.command:sweep",
            "compare models fairly: equal search, seeds, controls, intervals",
            show="finedge.calib.sweep.show:show",
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
        "sensitivity": Command(
            "finedge.calib.sensitivity.command:sensitivity",
            "rank the layers by what INT8 of each alone costs",
            show="finedge.calib.sensitivity.show:show",
            extra="calib",
        ),
        "build": Command(
            "finedge.runtime.trt.build.command:build",
            "build TensorRT engines, or only look what they need: --dry-run",
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
        "events": Command(
            "finedge.runtime.events.command:events",
            "list the visits that classify --store kept; export them",
            show="finedge.runtime.events.show:show",
        ),
        "serve": Command(
            "finedge.runtime.serve.command:serve",
            "answer pictures over HTTP: POST /classify",
            extra="serve",
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
                "finedge.train.evaluate.command:evaluate",
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
        "choose": Command(
            "finedge.runtime.variant.command:choose",
            "say which variant `auto` runs on this machine, and why",
            show="finedge.runtime.variant.show:show",
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


def overview() -> str:
    """Return what `finedge --help` prints: the commands by stage, in 80 columns."""
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
