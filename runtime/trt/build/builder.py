"""An engine for a bundle: the stored one whose key is exactly right, or a new one, saying what the old one differed in."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finedge import __version__
from finedge.bundle import Bundle
from finedge.errors import FinedgeError, SystemProblem
from finedge.files import writable_place
from finedge.runtime.trt.build.attention import faster
from finedge.runtime.trt.build.candidate import Candidate, candidates, register_plugin
from finedge.runtime.trt.build.compiler import Compiled, Order, compile_engine
from finedge.runtime.trt.build.expect import problems
from finedge.runtime.trt.build.log import collected, logger
from finedge.runtime.trt.build.memory import check_memory
from finedge.runtime.trt.build.options import BuildOptions, Typing
from finedge.runtime.trt.build.store import EngineStore, Found, machine_name
from finedge.runtime.trt.build.target import Target, target
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.timing import milliseconds

if TYPE_CHECKING:
    from finedge.runtime.trt.build.layers import LayerReport

log = logging.getLogger(__name__)

Built = Found  # path, key, record, and read(), which checks the digest


@dataclass(frozen=True)
class Made:
    """A compiled candidate and the typing it took."""

    candidate: Candidate
    compiled: Compiled
    typing: Typing


def build(bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Built:
    """Build an engine and keep it with its record; where both kinds of attention are possible on this GPU, the faster.

    Raises:
        FinedgeError: the parser or the builder refuses the model; the text has their reasons.
        BackendMissing: no GPU where one is needed, or no plugin where it was asked for.
        UsageError: a target, typing or batch that this library or model does not have.
        SystemProblem: not enough memory.
        KeyboardInterrupt: the user stopped it; nothing was written.
    """
    store, where = EngineStore.of(bundle), target(options.targets, library=library)
    writable_place(store.folder, option="the engine")
    possible = candidates(bundle, options, library=library, where=where)
    best, times = _fastest(
        _compile_all(bundle, possible, library=library, where=where),
        bundle,
        options,
        library=library,
    )
    choice, compiled = best.candidate.choice, best.compiled
    layers = _layers(compiled, library=library, where=where)
    found = problems(layers, bundle=bundle, model=best.candidate.model, precision=options.precision)
    for problem in found:
        log.warning("%s: %s", options.precision, problem)
    record = {
        "finedge": __version__,
        "file": options.file,
        "seconds": round(compiled.seconds, 3),
        "attention": {
            "asked": options.attention,
            "considered": _modes(possible),
            "chosen": choice.mode,
            "why": choice.why,
            "ms": times,
        },
        "memory": best.candidate.memory.to_json(),
        "problems": list(found),
        **layers.to_json(),
    }
    return store.keep(best.candidate.key_with(best.typing), compiled.engine, record)


def engine_for(bundle: Bundle, options: BuildOptions, *, library: TrtLibrary) -> Built:
    """Return the stored engine with exactly the right key, or build one; errors are those of `build`."""
    store, where = EngineStore.of(bundle), target(options.targets, library=library)
    possible = candidates(bundle, options, library=library, where=where)
    for candidate in possible:
        found = _stored(store, candidate, library, considered=_modes(possible))
        if found:
            return found
    _say_why(store, possible[0], bundle)
    return build(bundle, options, library=library)


def _stored(
    store: EngineStore, candidate: Candidate, library: TrtLibrary, *, considered: list[str]
) -> Found | None:
    """Return a whole engine of this key; where there is a choice, only one that was chosen among the same."""
    typings: tuple[Typing, ...] = (
        (candidate.options.typing, "weak")
        if library.may_type_weakly
        else (candidate.options.typing,)
    )
    found = next((f for f in map(store.find, map(candidate.key_with, typings)) if f), None)
    if found is None or (
        len(considered) > 1 and found.record["attention"]["considered"] != considered
    ):
        return None
    return found if found.is_whole() else None


def _say_why(store: EngineStore, candidate: Candidate, bundle: Bundle) -> None:
    """Say why there is no engine to use: none yet, or in what the nearest differs."""
    near, key = store.nearest(candidate.key), candidate.key
    if near is None or near.key.precision != key.precision:
        log.info("%s has no %s engine yet: building it", bundle.path, key.precision)
    elif near.key != key:
        log.warning("%s does not fit (%s): building again", near.path.name, key.explain(near.key))


def _compile_all(
    bundle: Bundle, possible: tuple[Candidate, ...], *, library: TrtLibrary, where: Target
) -> list[Made]:
    """Compile every candidate; where there are several, those that fail are left out, unless all do."""
    made: list[Made] = []
    failed: list[FinedgeError] = []
    for candidate in possible:
        try:
            made.append(_compile(bundle, candidate, library=library, where=where))
        except FinedgeError as error:  # noqa: PERF203 - two at most
            failed.append(error)
    if not made:
        raise failed[0]
    for reason in failed:
        log.warning("left out of the choice: %s", reason)
    return made


def _compile(bundle: Bundle, candidate: Candidate, *, library: TrtLibrary, where: Target) -> Made:
    """Compile a candidate, with weak typing where strong typing fails and the library is old enough to have both."""
    check_memory(candidate.memory, here=where.here)
    register_plugin(candidate, library)
    title = f"{bundle.name} {candidate.options.precision} ({candidate.choice.mode} attention) for {where.gpu}"
    order = Order(
        title,
        bundle.spec.input.name,
        candidate.options,
        library,
        where,
        machine_name(candidate.key),
    )
    try:
        return Made(candidate, compile_engine(candidate.model, order), candidate.options.typing)
    except FinedgeError as error:
        if (
            isinstance(error, SystemProblem)
            or candidate.options.typing == "weak"
            or not library.may_type_weakly
        ):
            raise
        log.warning("%s\n  trying again with weak typing", error)
    return Made(
        candidate,
        compile_engine(
            candidate.model, replace(order, options=replace(candidate.options, typing="weak"))
        ),
        "weak",
    )


def _fastest(
    made: list[Made], bundle: Bundle, options: BuildOptions, *, library: TrtLibrary
) -> tuple[Made, dict[str, float]]:
    """Return the fastest, and the milliseconds of each mode where there was a choice."""
    if len(made) == 1:
        return made[0], {}
    by_mode = {m.candidate.choice.mode: m for m in made}
    engines = {mode: m.compiled.engine for mode, m in by_mode.items()}
    mode, times = faster(
        engines, lambda data: milliseconds(data, bundle, batch=options.profile.opt, library=library)
    )
    log.info(
        "attention: %s is the fastest of %s (ms a batch of %d)", mode, times, options.profile.opt
    )
    return by_mode[mode], times


def _layers(compiled: Compiled, *, library: TrtLibrary, where: Target) -> LayerReport:
    """Read the engine's layers; a report that cannot be read is empty and logged, the engine is kept all the same."""
    from finedge.runtime.trt.build.layers import LayerReport

    try:
        return _read_layers(compiled, library=library, where=where)
    except FinedgeError as error:
        log.warning("no layer report: %s", error)
        return LayerReport((), "build log" if where.here is None else "inspector")


def _read_layers(compiled: Compiled, *, library: TrtLibrary, where: Target) -> LayerReport:
    """Read them from the engine where it can be opened here, else from the log of the build."""
    from finedge.runtime.trt.build.layers import from_inspector, from_log

    if where.here is None:
        return from_log(compiled.messages)
    trt = library.trt
    with collected(trt):
        runtime = trt.Runtime(logger(trt))
        engine = runtime.deserialize_cuda_engine(compiled.engine)
        if engine is None:
            return from_log(compiled.messages)
        return from_inspector(
            engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        )


def _modes(possible: tuple[Candidate, ...]) -> list[str]:
    return [c.choice.mode for c in possible]
