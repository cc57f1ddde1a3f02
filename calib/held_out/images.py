"""The held-out images of a confidence calibration, and the scores of each variant on them.

They are of the validation split alone. Test is never used: the accuracy is measured there. Train is
never used: the network knows it by heart, so a temperature fitted there would make it more sure.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import CPU_FILE, Bundle
from finedge.calib.parallel import in_order
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.data import DataSet, Item, content_digest, drop_unreadable
from finedge.ops import softmax
from finedge.provenance import REDUCED
from finedge.runtime.backend import Session, SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.subset import first_balanced

log = logging.getLogger(__name__)

SPLIT = "val"
NO_VAL = ". The recipe has val = 0, so all of train was trained on: train with val = 0.1 for a fit"
# Fewer cannot place the threshold: 5 % of 100 images are five of them.
MIN_IMAGES = 100
FLOAT, HALF = "fp32", "fp16"
FIRST_BATCHES = 16  # of four images: what fp16 is checked on
SAME_PROBABILITY = 0.01
MAX_IMAGES = 1000  # the rest of a large split would cost minutes and move T in its third digit


def held_out(data: DataSet) -> CalibrationSet | None:
    """Return up to 1000 validation images, evenly over the classes.

    None, and a warning, where there are fewer than 100. Images whose bytes are also in train or
    test are left out and logged.
    """
    candidates = first_balanced(tuple(data.splits.get(SPLIT, ())), MAX_IMAGES)
    validation = replace(data, splits={**data.splits, SPLIT: candidates})
    items = drop_unreadable(validation, splits=(SPLIT,)).splits[SPLIT]
    shared = _copies(items, [i for s in ("train", "test") for i in data.splits.get(s, ())])
    if shared:
        log.warning(
            "%d image(s) of split '%s' are also in train or test, first %s: left out of the fit",
            len(shared),
            SPLIT,
            shared[0].path,
        )
    kept = tuple(i for i in items if i not in shared)
    if len(kept) < MIN_IMAGES:
        log.warning(
            "no confidence is fitted: %s has %d held-out images (split '%s'), at least %d are "
            "needed; nothing will be called unknown%s",
            data.root,
            len(kept),
            SPLIT,
            MIN_IMAGES,
            NO_VAL if (data.cut or {}).get("val") == 0 else "",
        )
        return None
    return CalibrationSet(kept, tuple(content_digest(i.path) for i in kept))


@dataclass(frozen=True)
class HeldOutScores:
    """What every variant answers to the held-out images.

    Attributes:
        scores: [n, classes] by variant. `REDUCED` is int8 as CPUs whose products saturate compute
            it: with weights that are cut at load. fp16 may have those of the first images only:
            then it is `same_as_float`.
        files: the file that was run, by the same names.
        labels: the true class of each image, int [n].
        local: the local outputs by the same names, then by output; for models with local heads.
    """

    scores: Mapping[str, NDArray[np.float32]]
    files: Mapping[str, str]
    labels: NDArray[np.intp]
    local: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[str, ...]:
        """The names that are variants of the bundle."""
        return tuple(name for name in self.scores if name != REDUCED)

    def same_as_float(self, variant: str) -> bool:
        """Tell whether a variant was left after the first images: it answers as fp32 does."""
        return len(self.scores[variant]) < len(self.labels)


def variant_scores(bundle: Bundle, sample: CalibrationSet) -> HeldOutScores:
    """Run the variants on the images; each image is read once.

    A CPU computes fp16 as slowly as fp32, with weights in half precision. So fp16 is run on the
    first 64 images only, as long as it gives the answers and the probabilities of fp32 there.
    """
    with ExitStack() as stack:
        # The fit goes with the file to other CPUs and to GPUs, so INT8 products are exact.
        backend = OnnxRuntimeBackend(SessionOptions(exact=True, threads=1))
        sessions = {
            variant: stack.enter_context(closing(backend.open(bundle, variant=variant)))
            for variant in bundle.variants()
        }
        if CPU_FILE in bundle.files:
            sessions[REDUCED] = stack.enter_context(closing(backend.open_reduced(bundle)))
        outputs = _run(sessions, sample, bundle)
        files = {variant: session.info.file for variant, session in sessions.items()}
    labels = np.array([item.label for item in sample.items], np.intp)
    main = bundle.spec.main.name
    scores = {variant: arrays.pop(main) for variant, arrays in outputs.items()}
    return HeldOutScores(scores, files, labels, outputs)


def _run(
    sessions: Mapping[str, Session], sample: CalibrationSet, bundle: Bundle
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return the outputs by variant: of all images, or of the first where the rest says no more."""
    batches = sample.watched_batches(bundle.spec.preprocess, "fitting confidence")
    main = bundle.spec.main.name
    first = list(_answers(sessions, islice(batches, FIRST_BATCHES)))
    left = dict(sessions)
    if {FLOAT, HALF} <= sessions.keys():
        expected, half = ([outputs[name][main] for outputs in first] for name in (FLOAT, HALF))
        if is_same(expected, half):
            del left[HALF]
    answers = [*first, *_answers(left, batches)]
    return {variant: _joined([a[variant] for a in answers if variant in a]) for variant in sessions}


def _answers(
    sessions: Mapping[str, Session], batches: Iterable[NDArray[np.uint8]]
) -> Iterator[dict[str, dict[str, NDArray[np.float32]]]]:
    """Yield the outputs of each batch by variant; each core has a batch of its own."""
    return in_order(
        lambda batch: {variant: session(batch) for variant, session in sessions.items()}, batches
    )


def _joined(
    batches: Sequence[Mapping[str, NDArray[np.float32]]],
) -> dict[str, NDArray[np.float32]]:
    return {name: np.concatenate([outputs[name] for outputs in batches]) for name in batches[0]}


def is_same(expected: Sequence[NDArray[np.float32]], scores: Sequence[NDArray[np.float32]]) -> bool:
    """Tell whether scores give the same answers, and probabilities at most 0.01 apart."""
    p, q = (softmax(np.concatenate(s).astype(np.float64)) for s in (expected, scores))
    same_answers = bool((p.argmax(axis=1) == q.argmax(axis=1)).all())
    return same_answers and float(np.abs(p - q).max()) <= SAME_PROBABILITY


def _copies(items: tuple[Item, ...], others: list[Item]) -> list[Item]:
    """Return the items whose bytes are also those of another; only files of equal size are read."""
    sizes = {i.path.stat().st_size for i in items}
    digests = {
        content_digest(o.path)
        for o in others
        if o.path.is_file() and o.path.stat().st_size in sizes
    }
    return [i for i in items if content_digest(i.path) in digests]
