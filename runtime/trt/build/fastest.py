"""Builds every mode of attention that may be the faster one, times the engines, keeps the fastest.

A mode that cannot be built, or cannot be run, is left out. Its error is logged, and goes into the
engine's record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from finedge.errors import FinedgeError
from finedge.runtime.trt.build.attention import AttentionDecision, AttentionMode
from finedge.runtime.trt.build.compiler import CompiledEngine
from finedge.runtime.trt.build.spec import EngineSpec

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class FastestEngine:
    """The engine that was kept, with the times and errors of all modes of attention.

    Attributes:
        spec: how it was built.
        engine: the engine.
        milliseconds: of each mode that was timed, per batch.
        failed: the error of each mode that could not be built or timed.
    """

    spec: EngineSpec
    engine: CompiledEngine
    milliseconds: dict[AttentionMode, float]
    failed: dict[AttentionMode, str]

    @property
    def decision(self) -> AttentionDecision:
        """The mode that was kept, and why."""
        chosen = self.spec.attention
        if not self.failed:
            return chosen
        return AttentionDecision(chosen.mode, f"{' and '.join(self.failed)} failed")


def build_fastest(
    specs: Iterable[EngineSpec],
    *,
    build: Callable[[EngineSpec], CompiledEngine],
    milliseconds: Callable[[bytes], float] | None,
) -> FastestEngine:
    """Build every spec and return the fastest engine; the first where nothing is timed.

    Args:
        specs: ways to build, each with another mode of attention.
        build: compiles a spec.
        milliseconds: runs an engine's bytes and returns its milliseconds per batch.

    Raises:
        FinedgeError: every mode failed; it is the error of the first.
    """
    by_mode = {spec.attention.mode: spec for spec in specs}
    engines, failed = _attempts(by_mode, lambda mode: build(by_mode[mode]))
    times: dict[AttentionMode, float] = {}
    if len(engines) > 1 and milliseconds:
        times, untimed = _attempts(engines, lambda mode: milliseconds(engines[mode].data))
        failed |= untimed
    mode = min(times, key=times.__getitem__) if times else next(iter(engines))
    if len(times) > 1:
        log.info("attention: %s is the fastest of %s (ms per batch)", mode, times)
    rounded = {name: round(time, 4) for name, time in times.items()}
    return FastestEngine(by_mode[mode], engines[mode], rounded, failed)


def _attempts(
    modes: Iterable[AttentionMode], action: Callable[[AttentionMode], T]
) -> tuple[dict[AttentionMode, T], dict[AttentionMode, str]]:
    """Return what `action` returned for each mode, and the texts of the errors; raise if all fail.

    Every failure is logged, unless it is raised.
    """
    results: dict[AttentionMode, T] = {}
    errors: dict[AttentionMode, FinedgeError] = {}
    for mode in modes:
        try:
            results[mode] = action(mode)
        except FinedgeError as error:  # noqa: PERF203 - two at most
            errors[mode] = error
    if not results:
        raise next(iter(errors.values()))
    texts = {mode: str(error) for mode, error in errors.items()}
    for mode, text in texts.items():
        log.warning("attention: %s failed and is left out of the choice: %s", mode, text)
    return results, texts
