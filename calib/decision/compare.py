"""How far an INT8 file is from its float model, on the images of the decision set.

It runs with exact INT8 products: a decision goes with the bundle to other CPUs and to GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from finedge.calib.decision.decision_set import DecisionImages
from finedge.calib.parallel import in_order
from finedge.measure import mcnemar
from finedge.ops import softmax
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.int8_products import PROVIDER
from finedge.runtime.ort.session import open_model, session_settings
from finedge.spec import Spec

BATCH = 8


@dataclass(frozen=True)
class Comparison:
    """A model against the float model it was made of, image by image.

    Attributes:
        divergence: KL(float || model) of the probabilities in nats, float64 [n].
        agrees: whether both name the same class, bool [n].
        float_correct: whether the float model names the true class, bool [n].
        correct: whether the model names it, bool [n].
    """

    divergence: NDArray[np.float64]
    agrees: NDArray[np.bool_]
    float_correct: NDArray[np.bool_]
    correct: NDArray[np.bool_]

    @property
    def kl(self) -> float:
        """The mean divergence in nats."""
        return float(self.divergence.mean())

    @property
    def agreement(self) -> float:
        """The share of images on which both name the same class."""
        return float(self.agrees.mean())

    @property
    def top1(self) -> float:
        """The share of images whose true class the model names."""
        return float(self.correct.mean())

    @property
    def drop(self) -> float:
        """What top-1 loses against the float model, as a share; negative where it gains."""
        return float(self.float_correct.mean()) - self.top1

    @property
    def p_value(self) -> float:
        """The p-value of McNemar's test: float model and model are right equally often."""
        only_float = int((self.float_correct & ~self.correct).sum())
        only_model = int((self.correct & ~self.float_correct).sum())
        return mcnemar(only_float, only_model)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of the provenance record, with six digits."""
        numbers = {"kl": self.kl, "agreement": self.agreement, "top1": self.top1}
        return {**{k: round(v, 6) for k, v in numbers.items()}, "n": len(self.agrees)}


@dataclass(frozen=True)
class Scorer:
    """An open model."""

    session: onnxruntime.InferenceSession
    spec: Spec

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take uint8 [n, H, W, 3]; return scores of the main output, [n, classes]."""
        batches = (frames[i : i + BATCH] for i in range(0, len(frames), BATCH))
        return np.concatenate(list(in_order(self._run, batches)))

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        (scores,) = self.session.run([self.spec.main.name], {self.spec.input.name: batch})
        return np.asarray(scores, np.float32)


@dataclass(frozen=True)
class Decision:
    """Compares INT8 models with one float model on the same images.

    The float model runs once. `compare` may be called many times.

    Args:
        model: the float model.
        spec: of the bundle.
        images: the decision set.

    Examples:
        >>> decision = Decision(calibrated.model, calibrated.spec, images)
        >>> decision.compare(int8_model).agreement
        0.98
    """

    model: onnx.ModelProto = field(repr=False)
    spec: Spec
    images: DecisionImages = field(repr=False)

    @cached_property
    def float_scores(self) -> NDArray[np.float32]:
        """The float model's scores of the main output, [n, classes]."""
        return self.scores(self.model)

    def compare(self, model: onnx.ModelProto) -> Comparison:
        """Run a model with the same inputs and outputs on every image, and compare."""
        return compare_scores(self.float_scores, self.scores(model), labels=self.images.labels)

    def scores(self, model: onnx.ModelProto) -> NDArray[np.float32]:
        """Run any form of the model; return the scores of the main output, [n, classes]."""
        return self.open(model)(self.images.frames)

    def open(self, model: onnx.ModelProto) -> Scorer:
        """Open any form of the model, to run it on some of the images after others."""
        return Scorer(_open(model), self.spec)


def compare_scores(
    float_scores: NDArray[np.float32], scores: NDArray[np.float32], *, labels: NDArray[np.intp]
) -> Comparison:
    """Compare scores [n, classes] with those of the float model for the same images."""
    p, q = (softmax(s.astype(np.float64)) for s in (float_scores, scores))
    tiny = np.finfo(np.float64).tiny
    divergence = (p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny)))).sum(axis=1)
    first, second = float_scores.argmax(axis=1), scores.argmax(axis=1)
    return Comparison(divergence, first == second, first == labels, second == labels)


def _open(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    settings = session_settings(SessionOptions(exact=True, threads=1))
    content = model.SerializeToString()
    return open_model(content, settings, providers=[PROVIDER], name="the model to compare")
