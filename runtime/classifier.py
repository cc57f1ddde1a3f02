"""Frames in, labels out: what the camera, the benchmark and the evaluation all call."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.confidence import Confidence
from finedge.errors import FinedgeError, UsageError
from finedge.ops import softmax
from finedge.preprocess import preprocess
from finedge.runtime.backend import Session, SessionOptions, get_backend

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranked:
    """One label of an answer; `p` in [0, 1]."""

    index: int
    label: str
    p: float


@dataclass(frozen=True)
class Times:
    """Wall times of one call in milliseconds: what each frame of its batch waited for."""

    preprocess: float
    infer: float
    post: float


@dataclass(frozen=True)
class Prediction:
    """The most probable labels of one frame, the best first.

    `unknown`: the best is less probable than the bundle's reject threshold; never where the bundle has none (`finedge.confidence`).
    """

    top: tuple[Ranked, ...]
    ms: Times
    unknown: bool = False


@dataclass(frozen=True)
class Classifier:
    """A bundle with an open session; make one with `Classifier.open`, and close it (or use `with`)."""

    bundle: Bundle
    session: Session
    variant: str
    topk: int = 5

    @classmethod
    def open(
        cls,
        source: Path | str | Bundle,
        *,
        variant: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        spin: bool = False,
        topk: int = 5,
    ) -> Classifier:
        """Open a bundle.

        Args:
            source: a bundle or its folder.
            variant: fp32, fp16 or int8; `auto` is int8 where the bundle holds it, else fp32.
            backend: a backend's name, or `auto` for the first that runs here.
            threads: CPU threads; None is the physical cores this process may use.
            spin: see `SessionOptions`.
            topk: how many labels an answer holds, at most all.
        """
        if topk < 1:
            raise UsageError(f"topk {topk}", expected="at least 1")
        bundle = source if isinstance(source, Bundle) else Bundle.load(Path(source))
        chosen = _auto_variant(bundle) if variant == "auto" else variant
        session = get_backend(backend, options=SessionOptions(threads, spin)).open(
            bundle, variant=chosen
        )
        log.info(
            "%s: %s with %s on %s (%s)",
            bundle.name,
            session.info.file,
            session.info.backend,
            session.info.device,
            session.info.precision,
        )
        return cls(bundle, session, chosen, topk)

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Classify frames of any size (uint8 [H, W, 3], RGB) as one batch; no frames give no predictions.

        Raises:
            UsageError: a frame is no uint8 RGB picture.
            FinedgeError: the model returned NaN or infinity.
        """
        if not len(frames):
            return []
        start = time.perf_counter()
        batch = self.prepare(frames)
        prepared = time.perf_counter()
        scores = self.scores(batch)
        inferred = time.perf_counter()
        tops = self.rank(scores)
        times = Times(
            *(
                1e3 * t
                for t in (prepared - start, inferred - prepared, time.perf_counter() - inferred)
            )
        )
        return [Prediction(top, times, self.rejects(top[0].p)) for top in tops]

    def prepare(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Preprocess frames into the network's input: uint8 [B, H, W, 3]."""
        for frame in frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
                raise UsageError(
                    f"a frame of {frame.dtype} {list(frame.shape)}", expected="uint8 [H, W, 3], RGB"
                )
        return np.stack([preprocess(frame, self.bundle.spec.preprocess) for frame in frames])

    def scores(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on a prepared batch; return the deciding output, float32 [B, classes]."""
        return self.session(batch)[self.bundle.spec.main.name]

    def rank(self, scores: NDArray[np.float32]) -> list[tuple[Ranked, ...]]:
        """Turn scores [B, classes] into the `topk` labels of each row; a temperature changes their shares, never their order."""
        best = order(probabilities(scores))[:, : self.topk]
        labels = self.bundle.spec.labels
        shares = np.take_along_axis(self.tempered(scores), best, axis=1).tolist()
        return [
            tuple(Ranked(i, labels[i], share) for i, share in zip(row, values, strict=True))
            for row, values in zip(best.tolist(), shares, strict=True)
        ]

    def tempered(self, scores: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the class probabilities [B, classes] of scores at the bundle's temperature: the ones that are shown."""
        return probabilities(
            scores if self.confidence is None else scores / np.float32(self.confidence.temperature)
        )

    @cached_property
    def confidence(self) -> Confidence | None:
        """The variant's temperature and reject threshold, where the bundle was calibrated for them."""
        return self.bundle.confidence(self.variant)

    def rejects(self, p: float) -> bool:
        """Tell whether a top probability is too small to be an answer."""
        return self.confidence is not None and p < self.confidence.reject

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.floating]:
    """Return the class probabilities [B, classes] of scores of either kind, summing to 1.

    One formula serves both: the softmax of log-probabilities is their exponential, renormalised.

    Raises:
        FinedgeError: a score is NaN or infinite.
    """
    p = softmax(scores)
    if not np.isfinite(p).all():
        raise FinedgeError(
            "the model returned scores that are not finite",
            expected="finite numbers",
            fix="finedge verify BUNDLE finds the stage where it starts",
        )
    return p


def order(p: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the class indices of each row [B, classes], the most probable first; of equals the lower index."""
    return np.argsort(-p, axis=1, kind="stable")


def _auto_variant(bundle: Bundle) -> str:
    return "int8" if "int8" in bundle.variants() else "fp32"
