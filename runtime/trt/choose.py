"""Which stored engine a device runs: one built from these files for this GPU, checked once.

An engine that was built with another batch profile or workspace is accepted too. The first time on
a device the golden frame is replayed: an engine whose outputs differ is not used. On a GPU that
shares the CPU's memory, the faster memory for the input is chosen then too.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from typing import Any, get_args

from finedge.bundle import Bundle
from finedge.errors import GateError, SystemProblem
from finedge.golden import read_golden
from finedge.runtime.agreement import Stage, golden_stages
from finedge.runtime.backend import Session
from finedge.runtime.cuda.gpu import Gpu
from finedge.runtime.trt.build.key import PORTABLE, EngineKey
from finedge.runtime.trt.build.options import (
    PORTABLE_CAPABILITIES,
    BuildOptions,
    BuildTarget,
    board_name,
)
from finedge.runtime.trt.build.spec import usable_specs
from finedge.runtime.trt.build.store import EngineStore, StoredEngine
from finedge.runtime.trt.input_memory import Memory
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.session import TensorRtSession
from finedge.runtime.trt.timing import random_frames

log = logging.getLogger(__name__)

# The key's fields that a user may choose at `finedge build`: the engine still computes the same.
FREE_FIELDS = {"profile", "flags", "gpu", "compute_capability"}
# Entries of an engine's record, and what happens again where they cannot be written.
GOLDEN_ENTRY, INPUT_ENTRY = "golden", "input_memory"
REPEATED = {
    GOLDEN_ENTRY: "the golden frame is replayed",
    INPUT_ENTRY: "the memory for the input is timed",
}


def stored_engine(
    bundle: Bundle, options: BuildOptions, *, library: TrtLibrary, gpu: Gpu
) -> StoredEngine | None:
    """Return the newest whole engine of this model and precision that runs on this GPU, or None."""
    target = BuildTarget.of(gpu)
    specs = usable_specs(bundle, options, library=library, target=target)
    engines = [
        engine
        for engine in EngineStore.of(bundle)
        if runs_on(engine.key, gpu) and any(same_model(engine.key, spec.key) for spec in specs)
    ]
    engines.sort(key=_built_at, reverse=True)
    return next((engine for engine in engines if engine.is_whole()), None)


def _built_at(engine: StoredEngine) -> float:
    """Return when an engine was written; 0 where another process has just removed it."""
    try:
        return engine.path.stat().st_mtime
    except OSError:
        return 0.0


def same_model(key: EngineKey, other: EngineKey) -> bool:
    """Tell whether two keys differ in `FREE_FIELDS` only.

    What changes the graph, as taps do, is in its digest.
    """
    return set(key.differing(other)) <= FREE_FIELDS


def runs_on(key: EngineKey, gpu: Gpu) -> bool:
    """Tell whether an engine was built for this GPU.

    The board's name decides, or the compute capability (TensorRT for RTX). An engine of
    an earlier version, which knew the GPU's name only, may be another board's.
    """
    if (key.gpu, key.compute_capability) == (board_name(gpu), gpu.compute_capability):
        return True
    capability = f"sm{gpu.compute_capability.replace('.', '')}"
    if key.gpu == PORTABLE:
        return capability in [name.lower() for name in PORTABLE_CAPABILITIES]
    return capability in key.gpu.split("+")


def replay_once(
    session: Session, bundle: Bundle, *, engine: StoredEngine, variant: str, gpu: Gpu
) -> None:
    """Replay the golden frame, unless it passed on this device with this driver before.

    Args:
        session: the engine's session.
        bundle: what it was built from.
        engine: the engine; the result is written into its record.
        variant: fp32, fp16 or int8: which limit holds.
        gpu: the device.

    Raises:
        GateError: an output is further than the limit from what the engine's file answered when
            it was made; the stages are in `result`.
    """
    device = _device(gpu)
    if _entry(engine, GOLDEN_ENTRY, gpu).get("pass"):
        return
    stages = list(golden_stages(session, bundle, golden=read_golden(bundle), variant=variant))
    failed = [stage for stage in stages if stage["pass"] is False]
    result = {**device, "stages": stages, "pass": not failed}
    _record(engine, GOLDEN_ENTRY, result)
    if failed:
        differences = "; ".join(map(_description, failed))
        file, source = session.info.file, session.info.source
        raise GateError(
            f"{file} answers the golden frame otherwise than {source}: {differences}",
            expected="every output within its limit: this engine is not used",
            fix="compare with an engine built with --attention decomposed, "
            "or --precision int8-fp32",
            result=result,
        )
    summary = "; ".join(map(_description, stages))
    log.info("%s: golden frame replayed on %s: %s", session.info.file, gpu.name, summary)


def recorded_input_memory(engine: StoredEngine, gpu: Gpu) -> Memory | None:
    """Return the memory for the input that was the faster one on this device, or None."""
    choice = _entry(engine, INPUT_ENTRY, gpu).get("chosen")
    return choice if choice in get_args(Memory) else None


def choose_input_memory_once(
    session: TensorRtSession, bundle: Bundle, *, engine: StoredEngine, gpu: Gpu
) -> StoredEngine:
    """Let an integrated GPU time both memories for the input, unless the record has the result.

    Returns:
        The engine, with the result in its record.
    """
    if not gpu.integrated or recorded_input_memory(engine, gpu):
        return engine
    frames = random_frames(bundle.spec, engine.key.profile[1])
    try:
        times = session.choose_input_memory(frames)
    except SystemProblem as error:  # of the copy: no room for both, for example
        log.warning("the input stays mapped, untimed: %s", error.what)
        return engine
    memory, file = session.input_memory, session.info.file
    log.info("%s: input is %s, the faster of %s (ms per batch)", file, memory, times)
    milliseconds = {name: round(value, 4) for name, value in times.items()}
    result = {**_device(gpu), "chosen": memory, "batch": len(frames), "ms": milliseconds}
    return _record(engine, INPUT_ENTRY, result)


def _device(gpu: Gpu) -> dict[str, Any]:
    """Return what an entry holds for: the same engine may be copied to another machine."""
    return {"device": board_name(gpu), "driver": gpu.driver, "machine": platform.node()}


def _entry(engine: StoredEngine, name: str, gpu: Gpu) -> Mapping[str, Any]:
    """Return an entry of the engine's record, empty where it is of another device."""
    entry = engine.record.get(name)
    if not isinstance(entry, Mapping):
        return {}
    is_same = all(entry.get(key) == value for key, value in _device(gpu).items())
    return entry if is_same else {}


def _record(engine: StoredEngine, name: str, result: dict[str, Any]) -> StoredEngine:
    """Return the engine with an entry, which is written where that is possible."""
    try:
        return engine.with_entry(name, result)
    except OSError as error:  # an engine in a bundle that cannot be written
        log.warning(
            "%s cannot be written (%s): %s at every start",
            engine.path.with_suffix(".json"),
            error.strerror,
            REPEATED[name],
        )
        return engine


def _description(stage: Stage) -> str:
    name = stage["name"]
    if stage["pass"] is None:
        return f"{name} unchecked ({stage['skipped']})"
    if "note" in stage:
        return f"{name} {stage['note']}"
    return f"{name} max |delta| {stage['max_abs']:.3g}, limit {stage['limit']:.3g}"
