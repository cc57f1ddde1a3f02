"""Chooses the variant that `auto` runs on this machine with a backend.

At the first start the variants are timed end to end, for half a second where the case is clear and
for 3 seconds at most on a usual machine. Later starts remember the result. A one-shot
`finedge classify photo.jpg` gets no shorter check: a clear case ends it after 8 blocks anyway, and
what it measures is remembered for the camera too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import UsageError
from finedge.provenance import REDUCED, AccuracyCost
from finedge.runtime.backend import (
    FAKES,
    REDUCED_RANGE,
    Backend,
    HasEngines,
    Session,
    SessionOptions,
    usual_variants,
)
from finedge.runtime.variant.choice import Choice
from finedge.runtime.variant.islands import float_islands
from finedge.runtime.variant.memory import (
    Key,
    key_of,
    one_at_a_time,
    remember,
    remembered,
)
from finedge.runtime.variant.rule import decide
from finedge.runtime.variant.timing import Interleaved, Query, Timing, camera_frame

log = logging.getLogger(__name__)

# An environment variable: off skips the check, and auto is int8 where the backend gains by it.
SWITCH = "FINEDGE_VARIANT_CHECK"
Timer = Callable[[Mapping[str, Query]], Timing]


class Answerer(Protocol):
    """An open classifier of one variant."""

    @property
    def session(self) -> Session:
        """What runs."""

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> object:
        """Answer frames: uint8 [H, W, 3] RGB each."""

    def close(self) -> None:
        """Free it."""


OpenVariant = Callable[[str], Answerer]


@dataclass(frozen=True)
class Request:
    """What a variant is chosen for.

    Attributes:
        opener: the backend.
        bundle: the bundle.
        options: how the backend uses the CPU.
        again: measure also where a choice is remembered, or the check is switched off.
        any_backend: no backend was named, so another one may take the place of `opener`.
    """

    opener: Backend
    bundle: Bundle
    options: SessionOptions
    again: bool = False
    any_backend: bool = False

    @cached_property
    def usual(self) -> tuple[str, ...]:
        """The variants that are of use on the backend."""
        return usual_variants(self.opener, self.bundle)

    @cached_property
    def key(self) -> Key:
        """What the choice depends on: it is remembered under this key."""
        costs = self.bundle.calibration.accuracy
        return key_of(self.opener, self.bundle, self.options, costs=costs)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The variants that may be chosen; engines are never built for a comparison."""
        if not isinstance(self.opener, HasEngines):
            return self.usual
        built = self.opener.built_variants(self.bundle)
        return tuple(variant for variant in self.usual if variant in built)

    @property
    def default(self) -> str:
        """The variant that runs where nothing is compared."""
        return "int8" if "int8" in self.usual else "fp32"

    @property
    def has_cpu_time(self) -> bool:
        """Whether the CPU time of this process says how much work an answer is.

        It does not where a GPU computes, or where waiting threads keep their core busy.
        """
        return not (isinstance(self.opener, HasEngines) or self.options.spin)

    def remembered(self) -> Choice | None:
        """Return the choice of an earlier start, or None."""
        return None if self.again else remembered(self.key, self.bundle)


def choose(request: Request, open_variant: OpenVariant) -> Choice:
    """Return the variant to run, and say why in the log.

    `open_variant` opens a classifier of a variant on the backend.

    Raises:
        UsageError: FINEDGE_VARIANT_CHECK is neither on nor off.
        FinedgeError: a variant cannot be opened.
    """
    if request.opener.name in FAKES or not (request.again or is_check_on()):
        return Choice(request.default, "the variants were not compared", "unchecked")
    choice = request.remembered() or _new_choice(request, open_variant)
    _log(choice)
    return choice


def _new_choice(request: Request, open_variant: OpenVariant) -> Choice:
    names = request.candidates
    if len(names) < 2:
        return _single(request, names)
    with one_at_a_time():
        choice = request.remembered()  # by the process that was waited for
        if choice is None:
            timer = interleaved(cpu_time=request.has_cpu_time)
            choice = measured_choice(request.bundle, names, open_variant, timer=timer)
            remember(request.key, choice)
    return choice


def measured_choice(
    bundle: Bundle,
    variants: Sequence[str],
    open_variant: OpenVariant,
    *,
    timer: Timer,
) -> Choice:
    """Time variants interleaved, and choose one by the rule of `finedge.runtime.variant.rule`."""
    log.info(
        "%s: timing %s here, once, for a few seconds (%s=off skips this)",
        bundle.name,
        ", ".join(variants),
        SWITCH,
    )
    frames = [camera_frame()]
    with ExitStack() as exits:
        opened = {name: exits.enter_context(closing(open_variant(name))) for name in variants}
        queries = {name: _query(classifier, frames) for name, classifier in opened.items()}
        timing = timer(queries)
        infos = {name: classifier.session.info for name, classifier in opened.items()}
    costs = {name: _cost(bundle, name, infos[name].precision) for name in variants}
    stated = {name: cost for name, cost in costs.items() if cost is not None}
    islands = {"int8": float_islands(bundle, infos["int8"])} if "int8" in infos else {}
    variant, verdicts = decide(timing, variants, costs=stated, islands=islands)
    reason = "; ".join(verdict.reason for verdict in verdicts)
    return Choice(variant, reason, "measured", verdicts, timing.medians_ms, time.time())


def interleaved(*, cpu_time: bool) -> Timer:
    """Return the timer of this machine; with CPU time beside the wall time, or without."""
    cpu_clock = time.process_time if cpu_time else None
    return lambda queries: Interleaved(queries, cpu_clock=cpu_clock)()


def _query(classifier: Answerer, frames: Sequence[NDArray[np.uint8]]) -> Query:
    return lambda: classifier(frames)


def _cost(bundle: Bundle, variant: str, precision: str) -> AccuracyCost | None:
    """Return what a variant costs in accuracy as this machine computes it, where that is known."""
    costs = bundle.calibration.accuracy
    reduced = costs.get(REDUCED) if precision == REDUCED_RANGE else None
    return reduced or costs.get(variant)


def _single(request: Request, names: tuple[str, ...]) -> Choice:
    """Return the choice where at most one variant can be opened as it is."""
    if not names:
        return Choice(request.default, "no engine is built yet: it is built now", "single")
    if not isinstance(request.opener, HasEngines):
        return Choice(names[0], "the bundle holds no other variant for this backend", "single")
    choice = Choice(names[0], "no other variant has an engine for this device", "single")
    remember(request.key, choice)  # to look for the engines of each variant takes seconds
    return choice


def is_check_on() -> bool:
    """Tell whether FINEDGE_VARIANT_CHECK leaves the check on."""
    setting = os.environ.get(SWITCH, "on") or "on"
    if setting not in ("on", "off"):
        raise UsageError(f"{SWITCH}={setting}", expected="on or off")
    return setting == "on"


def _log(choice: Choice) -> None:
    """Say what runs and why; a warning where INT8 was compared and lost."""
    loses = choice.verdict("int8") is not None and choice.variant != "int8"
    level = logging.WARNING if loses and choice.basis == "measured" else logging.INFO
    if choice.basis == "remembered" and choice.measured_at:
        date = datetime.fromtimestamp(choice.measured_at).strftime("%Y-%m-%d")
        log.log(level, "%s (measured %s)", choice, date)
    else:
        log.log(level, "%s", choice)
