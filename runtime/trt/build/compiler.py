"""From an ONNX model to the bytes of an engine: the calls into the library, the same for TensorRT 10.3 to 11.x and TensorRT for RTX."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finedge.errors import FinedgeError, SystemProblem, UsageError
from finedge.files import write_bytes
from finedge.runtime.trt.build.log import Messages, collected, logger
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.build.profile import add_profile
from finedge.runtime.trt.build.progress import interruptible, monitor, progress_bars
from finedge.runtime.trt.build.seal import cache_folder
from finedge.runtime.trt.build.support import parser_errors, refusal
from finedge.runtime.trt.build.target import Target
from finedge.runtime.trt.library import TrtLibrary

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

log = logging.getLogger(__name__)

MIB = 1 << 20
SHOWN_ERRORS = 3


@dataclass(frozen=True)
class Compiled:
    """An engine's bytes, the seconds the library took, and everything it said."""

    engine: bytes
    seconds: float
    messages: Messages


@dataclass(frozen=True)
class Order:
    """What is compiled, how and for what: `title` is shown to the user, `machine` names the timing cache."""

    title: str
    input: str
    options: BuildOptions
    library: TrtLibrary
    target: Target
    machine: str


def compile_engine(model: onnx.ModelProto, order: Order) -> Compiled:
    """Build an engine of a prepared model.

    Raises:
        FinedgeError: the parser refuses nodes (all are listed), or the builder fails.
        SystemProblem: memory ran out.
        KeyboardInterrupt: the user stopped it.
    """
    trt = order.library.trt
    with collected(trt) as messages, progress_bars(order.title) as bars, interruptible() as stop:
        builder = trt.Builder(logger(trt))
        network = builder.create_network(_creation_flags(order))
        parser = trt.OnnxParser(network, logger(trt))  # it keeps neither builder nor network alive
        if not parser.parse(model.SerializeToString()):
            raise refusal(
                parser_errors(parser, model), file=order.options.file, library=order.library
            )
        config = _config(builder, order)
        add_profile(
            config, order.options.profile, builder=builder, network=network, name=order.input
        )
        config.progress_monitor = monitor(trt, bars, stop)
        timings = use_timing_cache(config, order)
        stop.check()
        start = time.perf_counter()
        engine = builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - start
        stop.check()
        if engine is None:
            raise _failed(messages, order)
        if timings:
            write_bytes(timings, bytes(config.get_timing_cache().serialize()))
        return Compiled(bytes(engine), seconds, messages)


def _creation_flags(order: Order) -> int:
    if order.options.typing == "strong":
        return 1 << int(order.library.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    if not order.library.may_type_weakly:
        raise UsageError(
            f"--typing weak with {order.library.name} {order.library.version}",
            expected="TensorRT before 10.12",
            fix="--typing strong",
        )
    return 0


def _config(builder: Any, order: Order) -> Any:
    trt, options = order.library.trt, order.options
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    config.profiling_verbosity = (
        trt.ProfilingVerbosity.DETAILED
    )  # the layer list is one line without it
    config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of mantissa: what is called fp32 is float32
    if options.typing == "weak":
        for flag in _weak_flags(options):
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if order.target.capabilities:
        config.num_compute_capabilities = len(order.target.capabilities)
        for i, name in enumerate(order.target.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
    return config


def _weak_flags(options: BuildOptions) -> tuple[str, ...]:
    """Return the precisions weak typing may use; Q/DQ pairs need the INT8 flag there (NVIDIA/TensorRT issue 4021)."""
    return {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8"), "int8-fp32": ("INT8",)}[
        options.precision
    ]


def use_timing_cache(config: Any, order: Order) -> Path | None:
    """Load this machine's timings and return where to keep the new ones; TensorRT for RTX times nothing when it builds."""
    if order.library.is_rtx:
        return None
    path = cache_folder() / "timing" / f"{order.machine}.cache"
    known = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
        log.warning("%s is another machine's or damaged: timed anew", path)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return path


def _failed(messages: Messages, order: Order) -> FinedgeError:
    said = "\n    ".join(messages.errors[-SHOWN_ERRORS:]) or "it gave no reason"
    what = f"{order.library.name} {order.library.version} cannot build {order.title}: {said}"
    if any("out of memory" in m.lower() or "OutOfMemory" in m for m in messages.errors):
        return SystemProblem(
            what, fix="a smaller --batch or --workspace-mib, or end other programs"
        )
    return FinedgeError(
        what,
        fix="finedge build --dry-run says what the parser refuses; try another --precision or --attention decomposed",
    )
