"""An engine for a bundle: the stored one whose key is exactly right, or a new one.

Where a new one is built, the log says in what the nearest stored one differs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from finedge import __version__
from finedge.bundle import Bundle
from finedge.errors import FinedgeError, SystemProblem
from finedge.files import writable_place
from finedge.runtime.machine.cache import cache_folder
from finedge.runtime.trt.build.compiler import BuildOrder, CompiledEngine, compile_engine
from finedge.runtime.trt.build.expect import problems
from finedge.runtime.trt.build.fastest import build_fastest
from finedge.runtime.trt.build.memory import check_memory
from finedge.runtime.trt.build.one_builder import one_builder
from finedge.runtime.trt.build.options import BuildOptions, BuildTarget, Typing, build_target
from finedge.runtime.trt.build.spec import EngineSpec, engine_specs, register_plugin
from finedge.runtime.trt.build.store import EngineStore, StoredEngine, machine_name
from finedge.runtime.trt.calls import typed_errors
from finedge.runtime.trt.factory import create
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.log import collected

if TYPE_CHECKING:
    from finedge.runtime.trt.build.layers import LayerReport

log = logging.getLogger(__name__)


class EngineTimer(Protocol):
    """Runs an engine on this machine's GPU; `finedge.runtime.trt.timing.batch_milliseconds`."""

    def __call__(self, data: bytes, bundle: Bundle, *, batch: int, library: TrtLibrary) -> float:
        """Return the milliseconds that the engine of these bytes takes per batch."""


def build(
    bundle: Bundle,
    options: BuildOptions,
    *,
    library: TrtLibrary,
    timer: EngineTimer | None = None,
) -> StoredEngine:
    """Build an engine and store it with its record.

    Args:
        bundle: the bundle.
        options: what the user chose.
        library: the library that builds.
        timer: times engines on this machine's GPU; where the plugin may be faster, both modes of
            attention are built and the faster is kept. Without it attention stays decomposed.

    Raises:
        FinedgeError: the parser or the builder refuses the model; the text has their reasons.
        BackendMissing: no GPU where one is needed, or no plugin where it was chosen.
        UsageError: a target, typing or batch that this library or model does not have.
        SystemProblem: not enough memory.
        KeyboardInterrupt: the user stopped it; nothing was written.
    """
    target, timed = build_target(options.targets, library=library), timer is not None
    specs = engine_specs(bundle, options, library=library, target=target, timed=timed)
    with one_builder(bundle.path):
        return _build(bundle, specs, options, library=library, target=target, timer=timer)


def _build(
    bundle: Bundle,
    specs: tuple[EngineSpec, ...],
    options: BuildOptions,
    *,
    library: TrtLibrary,
    target: BuildTarget,
    timer: EngineTimer | None,
) -> StoredEngine:
    """Compile all specs, keep the fastest engine with its record."""
    store = EngineStore.of(bundle)
    writable_place(store.folder, option="the engine")
    cache_folder()  # where the engine's seal needs a folder that this user lacks, say so now
    result = build_fastest(
        specs,
        build=lambda spec: _compile(bundle, spec, library=library, target=target),
        milliseconds=_milliseconds(bundle, options, library=library, timer=timer),
    )
    spec, engine = result.spec, result.engine
    layers = _layers(engine, library=library, target=target)
    record = {
        "finedge": __version__,
        "file": options.file,
        "seconds": round(engine.seconds, 3),
        "attention": {
            "asked": options.attention,
            "considered": _modes(specs),
            "chosen": result.decision.mode,
            "why": result.decision.reason,
            "ms": result.milliseconds,
            "failed": result.failed,
        },
        "memory": spec.memory.to_json(),
        **_layer_record(layers, bundle, spec),
    }
    return store.keep(spec.key_with(engine.typing), engine.data, record)


def engine_for(
    bundle: Bundle,
    options: BuildOptions,
    *,
    library: TrtLibrary,
    timer: EngineTimer | None = None,
) -> StoredEngine:
    """Return the stored engine with exactly the right key, or build one.

    Where another process builds one, this waits for it and takes that engine. Arguments and errors
    are those of `build`.
    """
    store, target = EngineStore.of(bundle), build_target(options.targets, library=library)
    timed = timer is not None
    specs = engine_specs(bundle, options, library=library, target=target, timed=timed)
    with one_builder(bundle.path):
        for spec in specs:
            engine = _stored(store, spec, library, considered=_modes(specs))
            if engine:
                return engine
        _log_why(store, specs[0], bundle)
        return _build(bundle, specs, options, library=library, target=target, timer=timer)


def _stored(
    store: EngineStore, spec: EngineSpec, library: TrtLibrary, *, considered: list[str]
) -> StoredEngine | None:
    """Return a whole engine of this key, or None.

    Where there are several modes of attention, only an engine that was chosen among the same ones.
    """
    typings: list[Typing] = [spec.options.typing]
    if library.may_type_weakly:
        typings.append("weak")
    engines = (store.find(spec.key_with(typing)) for typing in typings)
    engine = next((engine for engine in engines if engine), None)
    if engine is None:
        return None
    if len(considered) > 1 and engine.record["attention"]["considered"] != considered:
        return None
    return engine if engine.is_whole() else None


def _log_why(store: EngineStore, spec: EngineSpec, bundle: Bundle) -> None:
    """Log why there is no engine to use: none yet, or in what the nearest differs."""
    nearest, key = store.nearest(spec.key), spec.key
    if nearest is None or nearest.key.precision != key.precision:
        log.info("%s has no %s engine yet: building it", bundle.path, key.precision)
    elif nearest.key != key:
        difference = key.explain(nearest.key)
        log.warning("%s does not fit (%s): building again", nearest.path.name, difference)


def _compile(
    bundle: Bundle, spec: EngineSpec, *, library: TrtLibrary, target: BuildTarget
) -> CompiledEngine:
    """Compile a spec; with weak typing where strong typing fails and the library has both."""
    check_memory(spec.memory, gpu=target.local_gpu)
    register_plugin(spec, library)
    segment = "" if spec.options.segment is None else f" segment {spec.options.segment}"
    name = f"{bundle.name} {spec.options.precision}{segment}"
    title = f"{name} ({spec.attention.mode} attention) for {target.gpu}"
    order = BuildOrder(
        title,
        _inputs(bundle, spec),
        spec.options,
        library,
        target,
        machine_name(spec.key),
    )
    try:
        return compile_engine(spec.model, order)
    except SystemProblem:
        raise
    except FinedgeError as error:
        if spec.options.typing == "weak" or not library.may_type_weakly:
            raise
        log.warning("%s\n  trying again with weak typing", error)
    weak = replace(order, options=replace(spec.options, typing="weak"))
    return compile_engine(spec.model, weak)


def _inputs(bundle: Bundle, spec: EngineSpec) -> tuple[str, ...]:
    """Return the inputs that the model must have; a segment reads what earlier ones make."""
    if spec.options.segment is None:
        return (bundle.spec.input.name,)
    return tuple(tensor.name for tensor in spec.model.graph.input)


def _milliseconds(
    bundle: Bundle, options: BuildOptions, *, library: TrtLibrary, timer: EngineTimer | None
) -> Callable[[bytes], float] | None:
    """Return a function that times an engine's bytes at the usual batch."""
    if timer is None:
        return None
    return functools.partial(timer, bundle=bundle, batch=options.profile.opt, library=library)


def _layer_record(layers: LayerReport, bundle: Bundle, spec: EngineSpec) -> dict[str, Any]:
    """Return the record's entries about the layers; what is wrong with them is logged too."""
    precision = spec.options.precision
    is_part = spec.options.segment is not None
    sentences = problems(
        layers, bundle=bundle, model=spec.model, precision=precision, is_part=is_part
    )
    for sentence in sentences:
        log.warning("%s: %s", precision, sentence)
    return {"problems": list(sentences), **layers.to_json()}


def _layers(engine: CompiledEngine, *, library: TrtLibrary, target: BuildTarget) -> LayerReport:
    """Read the engine's layers; a report that cannot be read is empty and logged."""
    from finedge.runtime.trt.build.layers import LayerReport

    try:
        return _read_layers(engine, library=library, target=target)
    except FinedgeError as error:
        log.warning("no layer report: %s", error)
        return LayerReport((), "build log" if target.local_gpu is None else "inspector")


def _read_layers(
    engine: CompiledEngine, *, library: TrtLibrary, target: BuildTarget
) -> LayerReport:
    """Read them from the engine where it can be opened here, else from the log of the build."""
    from finedge.runtime.trt.build.read_layers import from_inspector, from_log

    if target.local_gpu is None:
        return from_log(engine.messages)
    trt = library.trt
    with collected(trt), typed_errors(trt, "read the engine's layers"):
        runtime = create(trt.Runtime, trt=trt)
        handle = runtime.deserialize_cuda_engine(engine.data)
        if handle is None:
            return from_log(engine.messages)
        inspector = handle.create_engine_inspector()
        return from_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _modes(specs: tuple[EngineSpec, ...]) -> list[str]:
    return [spec.attention.mode for spec in specs]
