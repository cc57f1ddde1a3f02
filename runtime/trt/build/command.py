"""`finedge build`: TensorRT engines of a bundle, stored beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.errors import FinedgeError, SystemProblem, UsageError, as_finedge_error
from finedge.runtime.batch_profile import Profile
from finedge.runtime.machine.packages import is_installed, package_version
from finedge.runtime.trt.build import builder
from finedge.runtime.trt.build.compiler import check_typing
from finedge.runtime.trt.build.layers import LayerReport
from finedge.runtime.trt.build.memory import check_memory
from finedge.runtime.trt.build.options import (
    FILES,
    AttentionOption,
    BuildOptions,
    Precision,
    Typing,
    build_target,
)
from finedge.runtime.trt.build.spec import engine_specs, register_plugin
from finedge.runtime.trt.build.store import EngineStore
from finedge.runtime.trt.build.support import refusal, to_json, unsupported
from finedge.runtime.trt.library import TrtLibrary, default_library, load_library
from finedge.runtime.trt.timing import batch_milliseconds

log = logging.getLogger(__name__)

Result = dict[str, Any]
# Entries of an engine's record that are printed.
RECORD_ENTRIES = ("seconds", "bytes", "attention", "memory", "summary", "problems")


def build(
    bundle: Positional[Path],
    *,
    precision: str = "fp16",
    backend: str = "auto",
    target: str = "local",
    attention: AttentionOption = "auto",
    batch: str = "1,1,8",
    workspace_mib: int = 1024,
    typing: Typing = "strong",
    debug_taps: bool = False,
    dry_run: bool = False,
) -> Result:
    """Build TensorRT engines of a bundle.

    A bundle with segments also gets an engine for each segment, for early exits. A precision that
    fails does not stop the others; the exit code is that of the worst.

    Args:
        bundle: the bundle's folder.
        precision: fp32, fp16, int8, int8-fp32 (float32 between the INT8 layers), or several:
            fp32,fp16,int8.
        backend: tensorrt or tensorrt-rtx; auto is the first that is installed.
        target: local is this machine's GPU; tensorrt-rtx also builds for named ones (sm86,sm89)
            and, without a GPU, a portable engine.
        attention: decomposed leaves it to TensorRT, plugin uses our kernel; auto is the faster of
            both on this GPU for heads of more than 256 channels, else decomposed.
        batch: the smallest, usual and largest batch, or one number.
        workspace_mib: scratch memory a layer may use, in MiB.
        typing: weak lets TensorRT before 10.12 choose types; it is tried there automatically where
            strong fails.
        debug_taps: the bundle's taps become outputs, so that verify can compare feature maps.
        dry_run: build nothing: list every node that TensorRT refuses, and what would be built.
    """
    if is_installed("onnx"):
        package_version("onnx")  # a broken one is an error with its fix
    loaded = Bundle.load(bundle)
    library = load_library(default_library() if backend == "auto" else backend)
    names = _precisions(precision)
    # "decomposed" until the precision is set: the plugin does not fit all of them.
    common = BuildOptions(
        "fp32",
        "decomposed",
        Profile.parse(batch),
        workspace_mib,
        tuple(target.split(",")),
        typing,
        debug_taps,
    )
    step: BuildStep = inspect if dry_run else make
    outcomes: dict[str, Outcome] = {}
    for name in names:
        options = replace(common, precision=name)
        outcomes[name] = _attempt(step, loaded, options, attention=attention, library=library)
    result = {
        "bundle": str(loaded.path.resolve()),
        "backend": library.name,
        "version": library.version,
        "dry_run": dry_run,
        "precisions": {name: outcome.result for name, outcome in outcomes.items()},
    }
    errors = {name: outcome.error for name, outcome in outcomes.items() if outcome.error}
    if errors:
        raise _worst(errors, result)
    return result


class BuildStep(Protocol):
    """What is done for each precision."""

    def __call__(self, bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Result:
        """Return what is printed."""


def make(bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Result:
    """Build one engine; return its file, key, seconds, bytes, attention and layer summary."""
    engine = builder.build(bundle, options, library=library, timer=batch_milliseconds)
    record = engine.record
    layers = LayerReport.from_json(record).describe()
    megabytes = record["bytes"] / 1e6
    log.info("%s: %.1f s, %.1f MB\n%s", engine.path, record["seconds"], megabytes, layers)
    return {
        "file": options.file,
        "engine": str(engine.path),
        "key": engine.key.digest(),
        "typing": _typing(engine.key.flags),
        **{name: record[name] for name in RECORD_ENTRIES},
    }


def inspect(bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Result:
    """Only parse; return what would be built and the memory it takes.

    Raises:
        FinedgeError: nodes are unsupported; its `result` is this result with their list.
    """
    check_typing(options, library)
    target = build_target(options.targets, library=library)
    specs = engine_specs(bundle, options, library=library, target=target, timed=True)
    store, memory = EngineStore.of(bundle), specs[0].memory
    result = {
        "file": options.file,
        "target": target.gpu,
        "attention": [spec.attention.to_json() for spec in specs],
        "memory": memory.to_json(),
        "keys": [
            {
                "digest": spec.key.digest(),
                "stored": store.find(spec.key) is not None,
                **spec.key.to_json(),
            }
            for spec in specs
        ],
        "unsupported": [],
    }
    check_memory(memory, gpu=target.local_gpu)
    for spec in specs:
        register_plugin(spec, library)
        nodes = unsupported(spec.model, library=library)
        if nodes:
            result["unsupported"] = to_json(nodes)
            raise refusal(nodes, file=options.file, library=library, result=result)
    return result


@dataclass(frozen=True)
class Outcome:
    """The result of one precision: `result` is printed, `error` decides the exit code."""

    result: Result
    error: FinedgeError | None = None


def _attempt(
    step: BuildStep,
    bundle: Bundle,
    options: BuildOptions,
    *,
    attention: AttentionOption,
    library: TrtLibrary,
) -> Outcome:
    result: Result = {}
    try:
        options = replace(options, attention=attention)
        result = step(bundle, options, library=library)
        result |= _segments(step, bundle, options, library=library)
    except FinedgeError as error:
        return _failure(options, error, whole=result)
    except OSError as error:  # e.g. a full disk
        typed = as_finedge_error(error) or SystemProblem(str(error))
        return _failure(options, typed, whole=result)
    return Outcome(result)


def _segments(
    step: BuildStep, bundle: Bundle, options: BuildOptions, *, library: TrtLibrary
) -> Result:
    """Do the same for each segment of the bundle; empty where it has none.

    An engine that shows feature maps is for `verify` only: it gets none.
    """
    count = 0 if options.debug_taps else bundle.export.segments.count
    parts = [step(bundle, replace(options, segment=k), library=library) for k in range(count)]
    return {"segments": parts} if parts else {}


def _failure(options: BuildOptions, error: FinedgeError, *, whole: Result) -> Outcome:
    """Return the outcome of an error; `whole` is the engine of the whole model, if it was built."""
    result = {"file": options.file, **(error.result or whole), "failed": str(error)}
    return Outcome(result, error)


def _worst(errors: dict[str, FinedgeError], result: Result) -> FinedgeError:
    """Return the error with the highest exit code; the others are logged."""
    worst = max(errors, key=lambda name: errors[name].exit_code)
    for name in (name for name in errors if name != worst):
        log.error("no %s engine: %s", name, errors[name])
    error = errors[worst]
    message = f"no {worst} engine: {error.what}"
    return type(error)(message, expected=error.expected, fix=error.fix, result=result)


def _precisions(text: str) -> tuple[Precision, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in FILES]
    if unknown:
        raise UsageError(
            f"unknown precision '{unknown[0]}'",
            expected=f"one or several of {', '.join(FILES)}, joined by commas",
        )
    return cast("tuple[Precision, ...]", names)


def _typing(flags: tuple[str, ...]) -> str:
    return next(flag.partition("=")[2] for flag in flags if flag.startswith("typing="))
