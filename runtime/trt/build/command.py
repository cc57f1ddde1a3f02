"""`finedge build`: TensorRT engines of a bundle, kept beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.errors import FinedgeError, UsageError
from finedge.runtime.trt.build import builder
from finedge.runtime.trt.build.candidate import candidates, register_plugin
from finedge.runtime.trt.build.layers import LayerReport
from finedge.runtime.trt.build.memory import check_memory
from finedge.runtime.trt.build.options import (
    FILES,
    Attention,
    BuildOptions,
    Precision,
    Profile,
    Typing,
)
from finedge.runtime.trt.build.store import EngineStore
from finedge.runtime.trt.build.support import refusal, to_json, unsupported
from finedge.runtime.trt.build.target import target as resolve
from finedge.runtime.trt.library import TrtLibrary, default_library, load_library

log = logging.getLogger(__name__)

Result = dict[str, Any]


def build(
    bundle: Positional[Path],
    *,
    precision: str = "fp16",
    backend: str = "auto",
    target: str = "local",
    attention: Attention = "auto",
    batch: str = "1,1,8",
    workspace_mib: int = 1024,
    typing: Typing = "strong",
    debug_taps: bool = False,
    dry_run: bool = False,
) -> Result:
    """Build TensorRT engines of a bundle; a precision that fails does not keep the others back, the exit code is that of the worst.

    Args:
        bundle: the bundle's folder.
        precision: fp32, fp16, int8, int8-fp32 (float32 between the INT8 layers), or several: fp32,fp16,int8.
        backend: tensorrt or tensorrt-rtx; auto is the first that is installed.
        target: local is this machine's GPU; tensorrt-rtx also builds for named ones (sm86,sm89) and, without a GPU, a portable engine.
        attention: decomposed leaves it to TensorRT, plugin takes our kernel, auto times both on a GPU and else goes by what TensorRT fuses.
        batch: the smallest, usual and largest batch, or one number.
        workspace_mib: scratch memory a layer may use, in MiB.
        typing: weak lets TensorRT before 10.12 choose types; tried there by itself where strong fails.
        debug_taps: the bundle's taps become outputs, so that verify can look inside.
        dry_run: build nothing: list every node TensorRT cannot take, and what would be built.
    """
    loaded, ours = (
        Bundle.load(bundle),
        load_library(default_library() if backend == "auto" else backend),
    )
    common = BuildOptions(
        "fp32",
        "decomposed",
        Profile.parse(batch),
        workspace_mib,
        tuple(target.split(",")),
        typing,
        debug_taps,
    )
    step: Step = look if dry_run else make
    done: dict[str, Outcome] = {
        name: _attempt(
            step, loaded, replace(common, precision=name), attention=attention, library=ours
        )
        for name in _names(precision)
    }
    head = {
        "bundle": str(loaded.path.resolve()),
        "backend": ours.name,
        "version": ours.version,
        "dry_run": dry_run,
    }
    result = {**head, "precisions": {name: outcome.result for name, outcome in done.items()}}
    failed = {name: outcome.error for name, outcome in done.items() if outcome.error}
    if failed:
        raise _worst(failed, result)
    return result


class Step(Protocol):
    """What is done for each precision."""

    def __call__(self, bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Result:
        """Return what is printed."""


def make(bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Result:
    """Build one engine; return its file, key, seconds, bytes, attention and layer summary."""
    built = builder.build(bundle, options, library=library)
    layers = LayerReport.from_json(built.record).describe()
    log.info(
        "%s: %.1f s, %.1f MB\n%s",
        built.path,
        built.record["seconds"],
        built.record["bytes"] / 1e6,
        layers,
    )
    shown = {
        name: built.record[name]
        for name in ("seconds", "bytes", "attention", "memory", "summary", "problems")
    }
    return {
        "file": options.file,
        "engine": str(built.path),
        "key": built.key.digest(),
        "typing": _typing(built.key.flags),
        **shown,
    }


def look(bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Result:
    """Only parse; return what would be built and how much memory that takes; unsupported nodes raise with the same as `result`."""
    where = resolve(options.targets, library=library)
    possible = candidates(bundle, options, library=library, where=where)
    store, first = EngineStore.of(bundle), possible[0]
    shown = {
        "file": options.file,
        "target": where.gpu,
        "attention": [{"mode": c.choice.mode, "why": c.choice.why} for c in possible],
        "memory": first.memory.to_json(),
        "keys": [
            {"digest": c.key.digest(), "stored": store.find(c.key) is not None, **c.key.to_json()}
            for c in possible
        ],
        "unsupported": [],
    }
    check_memory(first.memory, here=where.here)
    for candidate in possible:
        register_plugin(candidate, library)
        found = unsupported(candidate.model, library=library)
        if found:
            raise refusal(
                found,
                file=options.file,
                library=library,
                result={**shown, "unsupported": to_json(found)},
            )
    return shown


@dataclass(frozen=True)
class Outcome:
    """What one precision came to: `result` is printed, `error` decides the exit code."""

    result: Result
    error: FinedgeError | None = None


def _attempt(
    step: Step, bundle: Bundle, options: BuildOptions, *, attention: Attention, library: TrtLibrary
) -> Outcome:
    try:
        return Outcome(step(bundle, replace(options, attention=attention), library=library))
    except FinedgeError as error:
        return Outcome({"file": options.file, **(error.result or {}), "failed": str(error)}, error)


def _worst(failed: dict[str, FinedgeError], result: Result) -> FinedgeError:
    """Return the error with the highest exit code; the others are in the log."""
    worst = max(failed, key=lambda name: failed[name].exit_code)
    for name in (n for n in failed if n != worst):
        log.error("no %s engine: %s", name, failed[name])
    error = failed[worst]
    return type(error)(
        f"no {worst} engine: {error.what}", expected=error.expected, fix=error.fix, result=result
    )


def _names(text: str) -> tuple[Precision, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [n for n in names if n not in FILES]
    if unknown:
        raise UsageError(
            f"unknown precision '{unknown[0]}'",
            expected=f"one or several of {', '.join(FILES)}, joined by commas",
        )
    return cast("tuple[Precision, ...]", names)


def _typing(flags: tuple[str, ...]) -> str:
    return next(flag.partition("=")[2] for flag in flags if flag.startswith("typing="))
