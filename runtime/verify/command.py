"""`finedge verify`: the bundle against its golden frame and its run, stage by stage; the first that diverges is named.

A stage is `{"name", "max_abs", "limit", "pass"}`; `top-1` stages hold `agreement` and `n`; their `max_abs` is null. A stage that
could not be checked has `"pass": null` and the reason under `skipped`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from finedge.bundle import VARIANTS, Bundle
from finedge.data import Item
from finedge.errors import GateError
from finedge.golden import read_golden, tap_sample
from finedge.image import read_image
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
    Backend,
    HasOwnErrors,
    HasPixels,
    HasTaps,
    NoTaps,
    Session,
    get_backend,
)
from finedge.runtime.evaluate.labelled import bundle_dataset
from finedge.runtime.ort.backend import OnnxRuntimeBackend

# The share of images on which a variant must name the class that fp32 names; of 16 images 4 may differ. A healthy INT8 model that
# differs on 3 % of images fails once in 10,000 runs, one on a 7-bit machine (10 %) once in 60, a broken one (near chance) always.
AGREEMENT = {"fp16": 0.9, "int8": 0.75}


def verify(
    bundle: Positional[Path],
    *,
    data: Path | None = None,
    run: Path | None = None,
    images: int = 16,
    backend: str = "auto",
    variants: str = "",
) -> dict[str, Any]:
    """Compare preprocessing, taps, logits and top-1 with the golden frame (and the run); exit 5 names the first that diverges.

    Args:
        bundle: the bundle's folder.
        data: real images; without them the golden frame alone is checked.
        run: the run the bundle was exported from; compared in PyTorch on the real images.
        images: how many real images, chosen by a fixed seed.
        backend: what runs the bundle; auto is the first backend that runs here.
        variants: fp32, fp16, int8 in a comma list; default: all that the bundle holds.
    """
    loaded = Bundle.load(bundle)
    check = Check(
        loaded,
        get_backend(backend),
        data,
        run,
        images,
        tuple(v for v in variants.split(",") if v) or loaded.variants(),
    )
    stages = list(_all_stages(check))
    failed = [s for s in stages if s["pass"] is False]
    result = {"stages": stages, "pass": not failed}
    if failed:
        first = failed[0]
        raise GateError(
            f"stage '{first['name']}' diverges: {_measured(first)}",
            expected=_allowed(first),
            fix=_advice(first["name"]),
            result=result,
        )
    return result


@dataclass(frozen=True)
class Check:
    """What is compared with what."""

    bundle: Bundle
    backend: Backend
    data: Path | None
    run: Path | None
    images: int
    variants: tuple[str, ...]

    @cached_property
    def golden(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of golden.npz."""
        return read_golden(self.bundle)

    @property
    def golden_batch(self) -> NDArray[np.uint8]:
        """The golden input as a batch: uint8 [1, H, W, 3]."""
        return self.golden["input"][None].astype(np.uint8, copy=False)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The real images: of val, else of test, else of train. Nothing is measured: any will do."""
        found = bundle_dataset(self.bundle, self.data, whole=True)
        first = next((s for s in ("val", "test", "train") if found.splits.get(s)), "val")
        whole = found.split(first)
        return tuple(random.Random(0).sample(whole, min(self.images, len(whole))))

    @cached_property
    def batch(self) -> NDArray[np.uint8]:
        """The real images, preprocessed: uint8 [N, H, W, 3]."""
        return np.stack(
            [preprocess(read_image(i.path), self.bundle.spec.preprocess) for i in self.items]
        )

    @cached_property
    def reference(self) -> tuple[Backend, Bundle]:
        """The torch backend, and this bundle pointing to the given run."""
        record = {**self.bundle.provenance.get("train", {}), "run": str(self.run)}
        return get_backend("torch"), replace(
            self.bundle, provenance={**self.bundle.provenance, "train": record}
        )

    def without_run(self) -> str:
        """Return why there is no comparison with the run, or ''."""
        if self.run is None:
            return "no --run given"
        return "" if self.data else "no --data given: the run is compared on real images"


# --- the stages, in the order of the way of the data --------------------------------------------------------------------


def preprocess_stages(check: Check) -> Iterator[Stage]:
    """Compare the golden frame's pixels; with a run, those its own validation makes of real images."""
    found = preprocess(
        check.golden["frame"].astype(np.uint8, copy=False), check.bundle.spec.preprocess
    )
    yield compared("preprocess", found, check.golden["input"], limit=0)
    if check.without_run():
        yield skipped("preprocess run", check.without_run())
        return
    torch, bundle = check.reference
    if not isinstance(torch, HasPixels):
        yield skipped("preprocess run", f"backend '{torch.name}' does not show the run's pixels")
        return
    yield compared(
        "preprocess run", check.batch, torch.pixels(bundle, [i.path for i in check.items]), limit=0
    )


def tap_stages(check: Check) -> Iterator[Stage]:
    """Compare each tap of the float model with its golden sample; with a run, with PyTorch on real images."""
    if not check.bundle.taps:
        yield skipped("taps", "the bundle names no taps")
        return
    if not isinstance(check.backend, HasTaps):
        yield skipped("taps", f"backend '{check.backend.name}' shows no feature maps")
        return
    try:
        session = check.backend.open_with_taps(check.bundle)
    except NoTaps as error:
        yield skipped("taps", f"{error.what}: {error.fix}")
        return
    with closing(session):
        yield from _taps_of_golden(check, session)
        yield from _taps_of_run(check, session)


def _taps_of_golden(check: Check, session: Session) -> Iterator[Stage]:
    found = session(check.golden_batch)
    for key in (f"tap/{t.name}" for t in check.bundle.taps):
        yield compared(key, tap_sample(found[key]), check.golden.get(key), limit=TAP_LIMIT)


def _taps_of_run(check: Check, session: Session) -> Iterator[Stage]:
    why = check.without_run()
    if why:
        yield skipped("taps run", why)
        return
    torch, bundle = check.reference
    if not isinstance(torch, HasTaps):
        yield skipped("taps run", f"backend '{torch.name}' shows no feature maps")
        return
    reference = torch.open_with_taps(bundle)
    expected, found, own = (
        reference(check.batch),
        session(check.batch),
        _own_errors(reference, check.batch),
    )
    for key in (f"tap/{t.name}" for t in check.bundle.taps):
        yield compared(
            f"{key} run",
            found[key],
            expected.get(key),
            limit=TAP_LIMIT,
            own=own.get(key, 0.0),
        )


def logits_stages(check: Check) -> Iterator[Stage]:
    """Compare each file's outputs on the golden frame; with a run, the float file with PyTorch on real images."""
    for variant, session in _sessions(check):
        yield from golden_stages(session, check.bundle, golden=check.golden, variant=variant)
    why = check.without_run()
    if why:
        yield skipped("logits run", why)
        return
    torch, bundle = check.reference
    reference = torch.open(bundle, variant="fp32")
    expected, own = reference(check.batch), _own_errors(reference, check.batch)
    with closing(check.backend.open(check.bundle, variant="fp32")) as session:
        found = session(check.batch)
    for name in (o.name for o in check.bundle.spec.outputs):
        yield compared(
            f"logits run/{name}",
            found[name],
            expected.get(name),
            limit=FLOAT_LIMIT,
            own=own.get(name, 0.0),
        )


def top1_stages(check: Check) -> Iterator[Stage]:
    """Compare the class each other variant names with that of fp32, on real images."""
    others = [v for v in check.variants if v != "fp32"]
    if check.data is None or not others:
        yield skipped(
            "top-1", "no --data given" if check.data is None else "only fp32 is looked at"
        )
        return
    expected = _classes(check, "fp32")
    for variant in others:
        share = float((_classes(check, variant) == expected).mean())
        limit = AGREEMENT[variant]
        yield {
            "name": f"top-1 {variant}",
            "max_abs": None,
            "agreement": round(share, 4),
            "n": len(expected),
            "limit": limit,
            "pass": share >= limit,
        }


STAGES: tuple[Callable[[Check], Iterator[Stage]], ...] = (
    preprocess_stages,
    tap_stages,
    logits_stages,
    top1_stages,
)

# --- the parts ----------------------------------------------------------------------------------------------------------


def _own_errors(session: Session, batch: NDArray[np.uint8]) -> Mapping[str, float]:
    return session.own_errors(batch) if isinstance(session, HasOwnErrors) else {}


def _all_stages(check: Check) -> Iterator[Stage]:
    try:
        for stages in STAGES:
            yield from stages(check)
    except GateError as error:  # an engine that fails on its golden frame does not open: its numbers are what we ask for
        if not error.result:
            raise
        yield from error.result["stages"]


def _sessions(check: Check) -> Iterator[tuple[str, Session]]:
    """Open each variant as it runs here; ONNX Runtime also opens every other file of it.

    Where INT8 weights are cut to 7 bits, the file as it is written comes first, for only that
    proves it.
    """
    for variant in check.variants:
        with closing(check.backend.open(check.bundle, variant=variant)) as session:
            cut = session.info.precision == REDUCED_RANGE
            if not cut:
                yield variant, session
            yield from (
                (variant, s)
                for s in _as_written(check, variant, but="" if cut else session.info.file)
            )
            if cut:
                yield variant, session


def _as_written(check: Check, variant: str, *, but: str) -> Iterator[Session]:
    """Open the files of a variant, but one, with exact products, if this is ONNX Runtime."""
    if isinstance(check.backend, OnnxRuntimeBackend):
        exact = OnnxRuntimeBackend(replace(check.backend.options, exact=True))
        held = [f for f in reversed(VARIANTS[variant]) if f in check.bundle.files and f != but]
        yield from (exact.open_file(check.bundle, f) for f in held)


def _classes(check: Check, variant: str) -> NDArray[np.intp]:
    main = check.bundle.spec.main.name
    with closing(check.backend.open(check.bundle, variant=variant)) as session:
        scores = [session(check.batch[i : i + 1])[main] for i in range(len(check.batch))]
    best: NDArray[np.intp] = np.argmax(np.concatenate(scores), axis=1)
    return best


def _measured(stage: Stage) -> str:
    if "note" in stage:
        return str(stage["note"])
    return (
        f"{stage['agreement']:.1%} of {stage['n']} images agree"
        if "agreement" in stage
        else f"max |delta| {stage['max_abs']:.3g}"
    )


def _allowed(stage: Stage) -> str:
    return (
        f"at least {stage['limit']:.0%}"
        if "agreement" in stage
        else f"at most {stage['limit']:.3g}"
    )


def _advice(name: str) -> str:
    where = {
        "preprocess": "compare the versions of Pillow and OpenCV with those of the export",
        "tap": "this tap is the first place to look; export again",
        "logits": "export or calibrate again; on another runtime version compare its number with the limit",
        "top-1": "calibrate with more images or another method",
    }
    return next(text for start, text in where.items() if name.startswith(start))
