"""Frames in, labels out: what the camera, the benchmark and the evaluation all call."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.confidence import Confidence
from finedge.errors import FinedgeError, UsageError
from finedge.ops import softmax
from finedge.preprocess import preprocess_batch
from finedge.runtime.backend import Backend, Session, SessionOptions, get_backend
from finedge.runtime.early_exit.open import check_segments, open_early_exit
from finedge.runtime.look_twice.options import ONE_LOOK, LookOptions
from finedge.runtime.variant.backend_choice import with_faster_backend
from finedge.runtime.variant.choice import Choice
from finedge.runtime.variant.choose import Request, choose

if TYPE_CHECKING:
    from finedge.runtime.look_twice.second_look import SecondLook

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranked:
    """One label of an answer; `p` is its probability, in [0, 1]."""

    index: int
    label: str
    p: float


@dataclass(frozen=True)
class Times:
    """Wall times of one call in milliseconds. Each frame of a batch waited for all of it."""

    preprocess: float
    infer: float
    post: float


@dataclass(frozen=True)
class Prediction:
    """The most probable labels of one frame, the best first.

    `unknown`: the best label is less probable than the bundle's threshold. It is never set where
    the bundle has no threshold (`finedge.confidence`).
    """

    top: tuple[Ranked, ...]
    ms: Times
    unknown: bool = False


@dataclass(frozen=True)
class Classifier:
    """A bundle with an open session. Make one with `Classifier.open`; close it, or use `with`.

    `choice` says why this variant runs, where `auto` chose it. `second_look` cuts a part out of
    each frame, which is classified too (`finedge.runtime.look_twice`).

    Examples:
        >>> import numpy as np
        >>> from finedge.runtime.classifier import Classifier
        >>> photo = np.zeros((480, 640, 3), np.uint8)
        >>> with Classifier.open("examples/birds.finedge", variant="fp32", topk=3) as classifier:
        ...     (prediction,) = classifier([photo])
        >>> len(prediction.top)
        3
        >>> prediction.top[0].label in classifier.bundle.spec.labels
        True
    """

    bundle: Bundle
    session: Session
    variant: str
    topk: int = 5
    choice: Choice | None = None
    second_look: SecondLook | None = None

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
        early_exit: bool = False,
        look: LookOptions = ONE_LOOK,
    ) -> Classifier:
        """Open a bundle.

        Args:
            source: a bundle or its folder.
            variant: fp32, fp16 or int8. `auto` is int8 where it is faster than the float variants
                on this machine and as accurate (`finedge.runtime.variant`). The first opening of
                a bundle times that, for a few seconds at most; later ones remember it.
            backend: a backend's name, or `auto` for the first that runs on this machine. With the
                variant `auto` too, that is OpenVINO in place of ONNX Runtime where it is faster
                (`finedge.runtime.variant.backend_choice`).
            threads: CPU threads; None is the physical cores this process may use.
            spin: see `SessionOptions`.
            topk: how many labels an answer holds, at most all.
            early_exit: run the rest of the model only where no exit is sure
                (`finedge.runtime.early_exit`). `auto` chooses by the times of the whole model.
            look: classify a part of each frame again (`finedge.runtime.look_twice`).

        Raises:
            UsageError: `topk` is less than 1, or a variant or backend is unknown.
            BundleError: the bundle is damaged or lacks the variant; with `early_exit`, it lacks
                segments or thresholds; with `look_twice`, it lacks a map.
            BackendMissing: the backend cannot run on this machine; the text says why.

        Examples:
            >>> classifier = Classifier.open("examples/birds.finedge", backend="onnxruntime")
            >>> classifier.session.info.file
            'model.int8.cpu.onnx'
            >>> classifier.close()
        """
        if topk < 1:
            raise UsageError(f"topk {topk}", expected="at least 1")
        bundle = source if isinstance(source, Bundle) else Bundle.load(Path(source))
        _check(bundle, early_exit=early_exit, look=look)  # before variants are timed
        options = SessionOptions(threads, spin)
        opener = get_backend(backend, options=options)
        choice = None
        if variant == "auto":
            # OpenVINO runs no segments, and shows no map.
            any_backend = backend == "auto" and not (early_exit or look.look_twice)
            request = Request(opener, bundle, options, any_backend=any_backend)
            choice = cls.choose_variant(request)
            variant = choice.variant
            if choice.other_backend:
                opener = get_backend(choice.other_backend, options=options)
        session, second_look = _open(
            opener, bundle, variant=variant, early_exit=early_exit, look=look
        )
        info = session.info
        log.info(
            "%s: %s with %s on %s (%s)",
            bundle.name,
            info.file,
            info.backend,
            info.device,
            info.precision,
        )
        return cls(bundle, session, variant, topk, choice, second_look)

    @classmethod
    def choose_variant(cls, request: Request) -> Choice:
        """Return the variant that `auto` runs; the variants are timed where that is not known."""
        bundle, opener = request.bundle, request.opener

        def open_variant(variant: str) -> Classifier:
            return cls(bundle, opener.open(bundle, variant=variant), variant)

        choice = choose(request, open_variant)

        def open_in(backend: str) -> Classifier:
            session = get_backend(backend, options=request.options).open(
                bundle, variant=choice.variant
            )
            return cls(bundle, session, choice.variant)

        return with_faster_backend(choice, request, open_in)

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Classify frames of any size (uint8 [H, W, 3], RGB) as one batch.

        Returns:
            A prediction for each frame; an empty list for no frames.

        Raises:
            UsageError: a frame is not a uint8 RGB picture.
            FinedgeError: the model returned NaN or infinity.
        """
        if not len(frames):
            return []
        start = time.perf_counter()
        batch = self.prepare(frames)
        prepared = time.perf_counter()
        scores = self.scores(batch, frames=frames)
        inferred = time.perf_counter()
        tops = self.rank(self.probabilities(scores))
        ended = time.perf_counter()
        times = Times(
            preprocess=1e3 * (prepared - start),
            infer=1e3 * (inferred - prepared),
            post=1e3 * (ended - inferred),
        )
        return [Prediction(top, times, self.abstains(top[0].p)) for top in tops]

    def prepare(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Preprocess frames into the network's input: uint8 [B, H, W, 3].

        Each frame is read once, and its crop is written into the batch at once.
        """
        for frame in frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
                raise UsageError(
                    f"a frame of {frame.dtype} {list(frame.shape)}", expected="uint8 [H, W, 3], RGB"
                )
        return preprocess_batch(frames, self.bundle.spec.preprocess, count=len(frames))

    def scores(
        self, batch: NDArray[np.uint8], *, frames: Sequence[NDArray[np.uint8]] = ()
    ) -> NDArray[np.float32]:
        """Run the model on a prepared batch; return its main output, float32 [B, classes].

        With a second look it is the mean of both looks' outputs, which then needs the `frames` that
        were prepared.
        """
        outputs, main = self.session(batch), self.bundle.spec.main.name
        if self.second_look is None:
            return outputs[main]
        closer = self.session(self.second_look.crops(outputs, frames))
        return (outputs[main] + closer[main]) / np.float32(2)

    def probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the class probabilities of scores, both [B, classes], at the bundle's temperature.

        Raises:
            FinedgeError: a score is NaN or infinite.
        """
        temperature = 1.0 if self.confidence is None else self.confidence.temperature
        return probabilities(scores, temperature=temperature)

    def rank(
        self, p: NDArray[np.floating], *, first: int | None = None
    ) -> list[tuple[Ranked, ...]]:
        """Return the `topk` labels of each row of probabilities [B, classes], the best first.

        `first` is the index of a label that leads whatever its probability is.
        """
        keys = p
        if first is not None:
            keys = np.where(np.arange(p.shape[1]) == first, np.inf, p)
        best = order(keys)[:, : self.topk]
        best_p = np.take_along_axis(p, best, axis=1)
        labels = self.bundle.spec.labels
        return [
            tuple(Ranked(i, labels[i], value) for i, value in zip(row, values, strict=True))
            for row, values in zip(best.tolist(), best_p.tolist(), strict=True)
        ]

    @cached_property
    def confidence(self) -> Confidence | None:
        """The variant's temperature and threshold, where the bundle was calibrated for them."""
        return self.bundle.confidence(self.variant)

    def abstains(self, p: float) -> bool:
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


def _check(bundle: Bundle, *, early_exit: bool, look: LookOptions) -> None:
    """Refuse a bundle that lacks what was asked for."""
    if early_exit and look.look_twice:
        raise UsageError(
            "--early-exit with --look-twice", expected="one of them: an exit has no map to look at"
        )
    if early_exit:
        check_segments(bundle)
    if look.look_twice:
        from finedge.runtime.look_twice.open import chosen_view

        chosen_view(bundle, look.look_view)


def _open(
    opener: Backend, bundle: Bundle, *, variant: str, early_exit: bool, look: LookOptions
) -> tuple[Session, SecondLook | None]:
    if early_exit:
        return open_early_exit(opener, bundle, variant=variant), None
    if look.look_twice:
        from finedge.runtime.look_twice.open import open_second_look

        return open_second_look(opener, bundle, variant=variant, options=look)
    return opener.open(bundle, variant=variant), None


def probabilities(scores: NDArray[np.float32], *, temperature: float = 1.0) -> NDArray[np.floating]:
    """Return the class probabilities [B, classes] of scores of either kind; each row sums to 1.

    One formula serves logits and log-probabilities. The softmax of log-probabilities is their
    exponential, renormalised. Scores are divided by `temperature` first (> 0).

    Raises:
        FinedgeError: a score is NaN or infinite.
    """
    p = softmax(scores / np.float32(temperature))
    if not np.isfinite(p).all():
        raise FinedgeError(
            "the model returned scores that are not finite",
            expected="finite numbers",
            fix="finedge verify BUNDLE finds the stage where it starts",
        )
    return p


def order(p: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the class indices of each row [B, classes], the most probable first.

    Of equal probabilities the lower index comes first.
    """
    return np.argsort(-p, axis=1, kind="stable")
