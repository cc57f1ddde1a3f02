"""The stages of `finedge verify`: preprocessing, taps, logits and top-1, in the order of the data.

A stage is `{"name", "max_abs", "limit", "pass"}`. A `top-1` stage has `agreement` and `n`, and its
`max_abs` is null. A stage that could not be checked has `"pass": null` and the reason under
`skipped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import VARIANTS
from finedge.errors import GateError
from finedge.golden import tap_sample
from finedge.preprocess import preprocess
from finedge.runtime.agreement import (
    FLOAT_LIMIT,
    TAP_LIMIT,
    Stage,
    compared,
    golden_stages,
    skipped,
)
from finedge.runtime.backend import (
    REDUCED_RANGE,
    HasOwnErrors,
    HasPixels,
    HasTaps,
    NoTaps,
    Session,
)
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.verify.verification import Verification

# The share of images on which a variant must name the class that fp32 names; of 16 images 4 may
# differ. A healthy INT8 model that differs on 3 % of images fails once in 10,000 runs. One with
# weights reduced to 7 bits (10 %) fails once in 60. A broken one (near chance) always fails.
AGREEMENT = {"fp16": 0.9, "int8": 0.75}


def all_stages(verification: Verification) -> Iterator[Stage]:
    """Yield the stages one after another, each computed when it is asked for."""
    try:
        for stages in STAGES:
            yield from stages(verification)
    except GateError as error:
        # An engine that fails on its golden frame does not open. Its stages are in the error.
        if not error.result:
            raise
        yield from error.result["stages"]


# --- preprocessing


def preprocess_stages(verification: Verification) -> Iterator[Stage]:
    """Compare the golden frame's pixels; with a run, also real images as its validation sees them.

    Both must be equal to the bit.
    """
    golden = verification.golden
    frame = golden["frame"].astype(np.uint8, copy=False)
    pixels = preprocess(frame, verification.bundle.spec.preprocess)
    yield compared("preprocess", pixels, golden["input"], limit=0)
    yield _preprocess_of_run(verification)


def _preprocess_of_run(verification: Verification) -> Stage:
    name = "preprocess run"
    if reason := verification.why_no_run():
        return skipped(name, reason)
    torch, bundle = verification.reference
    if not isinstance(torch, HasPixels):
        return skipped(name, f"backend '{torch.name}' does not give the run's pixels")
    expected = torch.pixels(bundle, [item.path for item in verification.items])
    return compared(name, verification.batch, expected, limit=0)


# --- taps


def tap_stages(verification: Verification) -> Iterator[Stage]:
    """Compare each tap of the float model with its golden sample; with a run, with PyTorch."""
    backend = verification.backend
    if not verification.bundle.taps:
        yield skipped("taps", "the bundle names no taps")
        return
    if not isinstance(backend, HasTaps):
        yield skipped("taps", f"backend '{backend.name}' shows no feature maps")
        return
    try:
        session = backend.open_with_taps(verification.bundle)
    except NoTaps as error:
        yield skipped("taps", f"{error.what}: {error.fix}")
        return
    with closing(session):
        yield from _taps_of_golden(verification, session)
        yield from _taps_of_run(verification, session)


def _taps_of_golden(verification: Verification, session: Session) -> Iterator[Stage]:
    taps = session(verification.golden_batch)
    for name in verification.tap_names:
        sample = verification.golden.get(name)
        yield compared(name, tap_sample(taps[name]), sample, limit=TAP_LIMIT)


def _taps_of_run(verification: Verification, session: Session) -> Iterator[Stage]:
    if reason := verification.why_no_run():
        yield skipped("taps run", reason)
        return
    torch, bundle = verification.reference
    if not isinstance(torch, HasTaps):
        yield skipped("taps run", f"backend '{torch.name}' shows no feature maps")
        return
    batch, reference = verification.batch, torch.open_with_taps(bundle)
    expected, taps, errors = reference(batch), session(batch), _own_errors(reference, batch)
    for name in verification.tap_names:
        yield compared(
            f"{name} run",
            taps[name],
            expected.get(name),
            limit=TAP_LIMIT,
            own=errors.get(name, 0.0),
        )


# --- logits


def logits_stages(verification: Verification) -> Iterator[Stage]:
    """Compare each file's outputs on the golden frame; with a run, the float file with PyTorch."""
    for variant, session in _sessions(verification):
        yield from golden_stages(
            session, verification.bundle, golden=verification.golden, variant=variant
        )
    yield from _logits_of_run(verification)


def _logits_of_run(verification: Verification) -> Iterator[Stage]:
    if reason := verification.why_no_run():
        yield skipped("logits run", reason)
        return
    torch, bundle = verification.reference
    batch, reference = verification.batch, torch.open(bundle, variant="fp32")
    expected, errors = reference(batch), _own_errors(reference, batch)
    with closing(verification.backend.open(verification.bundle, variant="fp32")) as session:
        outputs = session(batch)
    for name in (output.name for output in verification.bundle.spec.outputs):
        yield compared(
            f"logits run/{name}",
            outputs[name],
            expected.get(name),
            limit=FLOAT_LIMIT,
            own=errors.get(name, 0.0),
        )


def _own_errors(session: Session, batch: NDArray[np.uint8]) -> Mapping[str, float]:
    return session.own_errors(batch) if isinstance(session, HasOwnErrors) else {}


def _sessions(verification: Verification) -> Iterator[tuple[str, Session]]:
    """Open each variant as it runs on this machine; ONNX Runtime also opens its other files.

    Where INT8 weights are scaled at load, the file as it is written comes first: only that file
    shows whether the stored weights are right.
    """
    for variant in verification.variants:
        with closing(verification.backend.open(verification.bundle, variant=variant)) as session:
            reduced = session.info.precision == REDUCED_RANGE
            if not reduced:
                yield variant, session
            for other in _as_written(
                verification, variant, but="" if reduced else session.info.file
            ):
                yield variant, other
            if reduced:
                yield variant, session


def _as_written(verification: Verification, variant: str, *, but: str) -> Iterator[Session]:
    """Open the files of a variant, except one, with exact products, if this is ONNX Runtime."""
    backend, bundle = verification.backend, verification.bundle
    if isinstance(backend, OnnxRuntimeBackend):
        exact = OnnxRuntimeBackend(replace(backend.options, exact=True))
        files = [f for f in reversed(VARIANTS[variant]) if f in bundle.files and f != but]
        yield from (exact.open_file(bundle, file) for file in files)


# --- top-1


def top1_stages(verification: Verification) -> Iterator[Stage]:
    """Compare the class that each other variant names with that of fp32, on real images."""
    others = [variant for variant in verification.variants if variant != "fp32"]
    if verification.data is None:
        yield skipped("top-1", "no --data given")
        return
    if not others:
        yield skipped("top-1", "only fp32 is compared")
        return
    expected = _classes(verification, "fp32")
    for variant in others:
        agreement = float((_classes(verification, variant) == expected).mean())
        limit = AGREEMENT[variant]
        yield {
            "name": f"top-1 {variant}",
            "max_abs": None,
            "agreement": round(agreement, 4),
            "n": len(expected),
            "limit": limit,
            "pass": agreement >= limit,
        }


def _classes(verification: Verification, variant: str) -> NDArray[np.intp]:
    """Return the class that a variant names for each real image: int [n]."""
    bundle, batch = verification.bundle, verification.batch
    with closing(verification.backend.open(bundle, variant=variant)) as session:
        scores = [session(batch[i : i + 1])[bundle.spec.main.name] for i in range(len(batch))]
    best: NDArray[np.intp] = np.argmax(np.concatenate(scores), axis=1)
    return best


STAGES: tuple[Callable[[Verification], Iterator[Stage]], ...] = (
    preprocess_stages,
    tap_stages,
    logits_stages,
    top1_stages,
)
