"""From an ONNX model to the bytes of an engine: the calls into the library.

They are the same for TensorRT 10.3 to 11.x and TensorRT for RTX.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finedge.errors import BundleError, FinedgeError, SystemProblem, UsageError
from finedge.files import write_bytes
from finedge.runtime.batch_profile import Profile
from finedge.runtime.machine.cache import cache_folder
from finedge.runtime.machine.packages import failure_text
from finedge.runtime.trt.build.options import BuildOptions, BuildTarget, Typing
from finedge.runtime.trt.build.progress import in_worker, interruptible, monitor, progress_bars
from finedge.runtime.trt.build.support import parser_errors, refusal
from finedge.runtime.trt.calls import BINDING_ERRORS
from finedge.runtime.trt.factory import OLD_DRIVER, create, driver_problem
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.log import Messages, collected

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

log = logging.getLogger(__name__)

MIB = 1 << 20
MAX_ERRORS = 3  # of the library's errors in ours
# The flags of weak typing; Q/DQ pairs need the INT8 flag there (NVIDIA/TensorRT issue 4021).
WEAK_FLAGS = {
    "fp32": (),
    "fp16": ("FP16",),
    "int8": ("FP16", "INT8"),
    "int8-fp32": ("INT8",),
}


@dataclass(frozen=True)
class CompiledEngine:
    """An engine's bytes.

    `seconds` is the time that the library took, `messages` what it logged, of TensorRT for RTX with
    the verbose messages. `typing` is the one it was built with.
    """

    data: bytes
    seconds: float
    messages: Messages
    typing: Typing


@dataclass(frozen=True)
class BuildOrder:
    """What is compiled: options, library, GPU.

    `title` is shown to the user, `inputs` are the model's inputs, `machine` names the timing cache.
    """

    title: str
    inputs: tuple[str, ...]
    options: BuildOptions
    library: TrtLibrary
    target: BuildTarget
    machine: str


def compile_engine(model: onnx.ModelProto, order: BuildOrder) -> CompiledEngine:
    """Build an engine of a prepared model.

    Raises:
        FinedgeError: the parser refuses nodes (all are listed), the builder fails, or the binding
            raises.
        SystemProblem: memory ran out, the driver is too old, or the library does not start here.
        KeyboardInterrupt: the user stopped it.
    """
    trt, options = order.library.trt, order.options
    with (
        collected(trt, everything=order.library.is_rtx) as messages,
        progress_bars(order.title) as bars,
        interruptible() as stop,
        _binding_errors(messages, order),
    ):
        builder = create(trt.Builder, trt=trt)
        network = builder.create_network(_creation_flags(order))
        # It keeps neither builder nor network alive.
        parser = create(trt.OnnxParser, network, trt=trt)
        if not parser.parse(model.SerializeToString()):
            errors = parser_errors(parser, model)
            raise refusal(errors, file=options.file, library=order.library)
        config = _config(builder, order)
        add_profile(config, options.profile, builder=builder, network=network, names=order.inputs)
        config.progress_monitor = monitor(trt, bars, stop)
        timing_cache = use_timing_cache(config, order)
        stop.check()
        start = time.perf_counter()
        engine = in_worker(lambda: builder.build_serialized_network(network, config))
        seconds = time.perf_counter() - start
        stop.check()
        if engine is None:
            raise _failure(messages, order)
        if timing_cache:
            keep_timings(config, timing_cache)
        return CompiledEngine(bytes(engine), seconds, messages, options.typing)


def _creation_flags(order: BuildOrder) -> int:
    check_typing(order.options, order.library)
    if order.options.typing == "strong":
        return 1 << int(order.library.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def check_typing(options: BuildOptions, library: TrtLibrary) -> None:
    """Raise `UsageError` where the library has no weak typing and the options ask for it."""
    if options.typing == "weak" and not library.may_type_weakly:
        raise UsageError(
            f"--typing weak with {library.name} {library.version}",
            expected="TensorRT before 10.12",
            fix="--typing strong",
        )


def _config(builder: Any, order: BuildOrder) -> Any:
    trt, options = order.library.trt, order.options
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    # The layer list is one line without it.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # TF32 has 10 bits of mantissa: an engine called fp32 computes in float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.typing == "weak":
        for flag in WEAK_FLAGS[options.precision]:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    capabilities = order.target.capabilities
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for i, name in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
    return config


def add_profile(
    config: Any, profile: Profile, *, builder: Any, network: Any, names: tuple[str, ...]
) -> None:
    """Give `config` the batch sizes of `profile` for the network's inputs `names`.

    The names are checked first: the library accepts a profile for an input that does not exist.

    Raises:
        BundleError: the network has other inputs, or another open size than the batch.
        UsageError: the network's batch is fixed at another size.
    """
    inputs = _input_shapes(network, names)
    batch = inputs[names[0]][0]
    if batch > 0:
        if (profile.min, profile.max) != (batch, batch):
            sizes = f"{profile.min},{profile.opt},{profile.max}"
            raise UsageError(
                f"batch profile {sizes} for a model of fixed batch {batch}",
                fix=f"--batch {batch}",
            )
        return
    shapes = builder.create_optimization_profile()
    for name, (_, *row) in inputs.items():
        shapes.set_shape(name, *((size, *row) for size in (profile.min, profile.opt, profile.max)))
    if config.add_optimization_profile(shapes) < 0:
        raise UsageError(
            f"TensorRT refuses the batch profile {profile}", expected="1 <= min <= opt <= max"
        )


def _input_shapes(network: Any, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    shapes = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    if set(shapes) != set(names):
        raise BundleError(
            f"the model's inputs are {', '.join(shapes)}",
            expected=f"{', '.join(names)}, as in the manifest",
            fix="export again",
        )
    for name, shape in shapes.items():
        if min(shape[1:]) < 1:
            raise BundleError(
                f"input {name} is {list(shape)}",
                expected="only the batch open (-1)",
                fix="export again",
            )
    return shapes


def use_timing_cache(config: Any, order: BuildOrder) -> Path | None:
    """Load this machine's kernel timings; return the file for the new ones.

    A file that cannot be read is logged. TensorRT for RTX times nothing when it builds: None.
    """
    if order.library.is_rtx:
        return None
    path = cache_folder() / "timing" / f"{order.machine}.cache"
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        log.warning("%s cannot be read (%s): kernels are timed again", path, error.strerror)
        data = b""
    if not config.set_timing_cache(config.create_timing_cache(data), ignore_mismatch=False):
        log.warning("%s is another machine's or damaged: kernels are timed again", path)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return path


def keep_timings(config: Any, path: Path) -> None:
    """Write the kernel timings of a build; the engine is worth more than they are."""
    try:
        write_bytes(path, bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        reason = error.strerror
        log.warning("%s cannot be written (%s): the next build times kernels again", path, reason)


@contextmanager
def _binding_errors(messages: Messages, order: BuildOrder) -> Iterator[None]:
    """Turn what the binding raises into the error of a failed build."""
    try:
        yield
    except BINDING_ERRORS as error:
        raise _failure(messages, order, failure_text(error)) from error


def _failure(messages: Messages, order: BuildOrder, *raised: str) -> FinedgeError:
    errors = [*messages.errors, *raised]
    reason = "\n    ".join(errors[-MAX_ERRORS:]) or "it gave no reason"
    problem = f"{order.library.name} {order.library.version} cannot build {order.title}: {reason}"
    if OLD_DRIVER.search(reason):
        return driver_problem(problem, order.library.trt)
    if any("out of memory" in text.lower() or "OutOfMemory" in text for text in errors):
        return SystemProblem(
            problem, fix="a smaller --batch or --workspace-mib, or end other programs"
        )
    return FinedgeError(
        problem,
        fix="finedge build --dry-run lists what the parser refuses; "
        "try another --precision or --attention decomposed",
    )
