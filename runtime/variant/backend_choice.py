"""Whether `auto` runs the chosen variant in OpenVINO: where that is verified, and faster.

ONNX Runtime is on every machine, so it is the default. OpenVINO runs the same file where it is
installed, gives the golden frame's scores within the limits of `finedge verify`, and is faster
beyond noise. That is measured once and remembered, as the variant is. Only the sessions are timed:
the preprocessing is the same.

Without VNNI, OpenVINO's INT8 products saturate. There INT8 stays in ONNX Runtime.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np

from finedge.bundle import Bundle
from finedge.errors import FinedgeError
from finedge.golden import read_golden
from finedge.runtime.agreement import golden_stages
from finedge.runtime.backend import Session, why_not
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.ort.int8_products import int8_products
from finedge.runtime.variant.choice import Choice
from finedge.runtime.variant.choose import Answerer, Request, Timer
from finedge.runtime.variant.memory import Key, one_at_a_time, remember, remembered
from finedge.runtime.variant.rule import Verdict
from finedge.runtime.variant.speed import Speed
from finedge.runtime.variant.timing import Interleaved, Plan

log = logging.getLogger(__name__)

DEFAULT, OTHER = "onnxruntime", "openvino"
# The first queries of a block are slower: the other session's weights are in the caches then.
PLAN = Plan(queries=10)
OpenIn = Callable[[str], Answerer]


class NotUsed(Exception):
    """OpenVINO does not run the variant here; the text says why."""


def with_faster_backend(choice: Choice, request: Request, open_in: OpenIn) -> Choice:
    """Return the choice, with `other_backend` set where OpenVINO runs its variant.

    `open_in` opens a classifier of the chosen variant in a backend. OpenVINO is never in the way: a
    failure of it leaves the choice as it was.
    """
    if not request.any_backend or request.opener.name != DEFAULT or choice.basis == "unchecked":
        return choice
    if not is_installed(OTHER):  # it is not even imported
        return choice
    if choice.variant == "int8" and int8_products() != "exact":
        return choice
    key = replace(request.key, backend=f"{DEFAULT} or {OTHER}: {choice.variant}")
    second = _remembered(key, request)
    if second is None:
        with one_at_a_time():
            second = _remembered(key, request) or _measured(choice, key, request, open_in)
    if second.other_backend != OTHER:
        return choice
    reason = f"{choice.reason}; {second.reason}"
    return replace(choice, other_backend=OTHER, reason=reason)


def is_verified(session: Session, bundle: Bundle, *, variant: str) -> bool:
    """Tell whether a session gives the scores of the golden frame, as `finedge verify` checks it.

    A bundle without golden scores verifies nothing.
    """
    stages = golden_stages(session, bundle, golden=read_golden(bundle), variant=variant)
    return all(stage["pass"] is True for stage in stages)


def _remembered(key: Key, request: Request) -> Choice | None:
    """Return an earlier result, unless OpenVINO was chosen and does not load any more."""
    second = None if request.again else remembered(key, request.bundle)
    if second is not None and second.other_backend == OTHER and why_not(OTHER) is not None:
        return None
    return second


def _measured(choice: Choice, key: Key, request: Request, open_in: OpenIn) -> Choice:
    """Verify and time OpenVINO beside ONNX Runtime, and remember the result."""
    now = time.time()
    try:
        speed = _speed(choice.variant, request, open_in)
    except NotUsed as problem:
        log.info("%s does not run %s here: %s", OTHER, choice.variant, problem)
        second = Choice(choice.variant, str(problem), "measured", measured_at=now)
    else:
        backend = OTHER if speed is not None and speed.is_faster else ""
        reason = f"{OTHER} was timed too shortly"
        if speed is not None:
            reason = f"{OTHER} is {speed.ratio:.2f}x as fast as {DEFAULT} ({speed})"
        log.info("%s", reason)
        verdicts = (Verdict(OTHER, DEFAULT, speed, None),)
        second = Choice(
            choice.variant, reason, "measured", verdicts, measured_at=now, other_backend=backend
        )
    remember(key, second)
    return second


def _speed(variant: str, request: Request, open_in: OpenIn) -> Speed | None:
    """Return how many times as fast OpenVINO's session is, on the golden frame."""
    bundle, reason = request.bundle, why_not(OTHER)
    if reason is not None:
        raise NotUsed(reason)
    timer = _timer(request)
    try:
        batch = read_golden(bundle)["input"][None].astype(np.uint8, copy=False)
        with ExitStack() as exits:
            default, other = (
                exits.enter_context(closing(open_in(name))).session for name in (DEFAULT, OTHER)
            )
            if not is_verified(other, bundle, variant=variant):
                raise NotUsed("its scores of the golden frame are not those of the file")
            queries = {DEFAULT: lambda: default(batch), OTHER: lambda: other(batch)}
            return timer(queries).speed(OTHER, of=DEFAULT)
    except FinedgeError as error:
        raise NotUsed(str(error)) from error


def _timer(request: Request) -> Timer:
    cpu_clock = time.process_time if request.has_cpu_time else None
    return lambda queries: Interleaved(queries, PLAN, cpu_clock=cpu_clock)()
