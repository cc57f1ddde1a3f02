"""Open a bundle's segments, or say what it lacks."""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

from finedge.bundle import Bundle
from finedge.early_exit import ExitRule
from finedge.errors import BundleError, UsageError
from finedge.provenance import REDUCED
from finedge.runtime.backend import REDUCED_RANGE, Backend, SessionInfo
from finedge.runtime.early_exit.session import EarlyExitSession, Segment

log = logging.getLogger(__name__)


@runtime_checkable
class HasSegments(Protocol):
    """A backend that can open the segments of a variant."""

    def open_segments(
        self, bundle: Bundle, *, variant: str
    ) -> tuple[tuple[Segment, ...], SessionInfo]:
        """Open every segment of a variant; the session names the first one's file."""


def open_early_exit(backend: Backend, bundle: Bundle, *, variant: str) -> EarlyExitSession:
    """Open a variant so that the rest of the model runs only where no exit is sure.

    Raises:
        BundleError: the bundle has no segments, or no thresholds of this variant.
        UsageError: the backend runs no segments.
    """
    check_segments(bundle)
    check_rules(bundle, variant)
    if not isinstance(backend, HasSegments):
        raise UsageError(
            f"--early-exit: backend '{backend.name}' runs no segments",
            expected="onnxruntime, tensorrt or tensorrt-rtx",
            fix="--backend onnxruntime, or leave out --early-exit",
        )
    segments, info = backend.open_segments(bundle, variant=variant)
    reduced = bundle.calibration.exits.get(REDUCED, ())
    rules = reduced if reduced and info.precision == REDUCED_RANGE else check_rules(bundle, variant)
    if all(rule.threshold is None for rule in rules):
        log.warning(
            "%s: no exit of %s is open, so no frame leaves early; it is faster without "
            "--early-exit. finedge calibrate --exit-loss 0.01 may open one",
            bundle.path,
            variant,
        )
    confidence = bundle.confidence(variant)
    temperature = 1.0 if confidence is None else confidence.temperature
    return EarlyExitSession(segments, bundle, rules=rules, info=info, temperature=temperature)


def has_early_exit(bundle: Bundle, variant: str) -> bool:
    """Tell whether a bundle has segments, and thresholds that fit them, for a variant."""
    exits = tuple(one.output for one in bundle.export.segments.exits)
    rules = bundle.calibration.exits.get(variant, ())
    return bool(exits) and exits == tuple(rule.output for rule in rules)


def check_segments(bundle: Bundle) -> None:
    """Refuse a bundle whose models are not cut; `BundleError` says how to cut them."""
    if not bundle.export.segments.exits:
        raise BundleError(
            f"{bundle.path} has no segments, so no frame can leave early",
            expected="a bundle of a model with local heads, in segments",
            fix="finedge export RUN --out BUNDLE --segments, then finedge calibrate",
        )


def check_rules(bundle: Bundle, variant: str) -> tuple[ExitRule, ...]:
    """Return the thresholds of a variant; `BundleError` where it has none that fit."""
    if not has_early_exit(bundle, variant):
        exits = [one.output for one in bundle.export.segments.exits]
        raise BundleError(
            f"{bundle.path} has no thresholds for the exits of {variant}",
            expected=f"one for each of {', '.join(exits)}, fitted on 100 validation images or more",
            fix="finedge calibrate BUNDLE --data DIR",
        )
    return bundle.calibration.exits[variant]
