"""The cost of `Classifier` over the bare ONNX Runtime call, preprocessing excluded: JSON on stdout.

    python benchmarks/cpu/classifier_overhead.py MODEL.onnx [--rounds 200] [--threads 1]

MODEL.onnx takes uint8 [B, 224, 224, 3] frames and returns logits, as the files of a bundle do. Both
sides run the same session on the same batch of one. They take turns in changing order, so that a
busy machine slows both alike.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import tyro

from finedge.bundle import Bundle
from finedge.runtime.backend import SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.spec import Input, Output, Preprocess, Spec

WARM_UP = 10


def main(
    model: tyro.conf.Positional[Path], *, rounds: int = 200, threads: int = 1, spin: bool = False
) -> None:
    """Time both calls in turns and print the medians of the paired samples."""
    settings = {"model": model.name, "threads": threads, "spin": spin}
    with tempfile.TemporaryDirectory() as folder:
        path, options = Path(folder) / "overhead.finedge", SessionOptions(threads, spin)
        numbers = measure(as_classifier(model, path, options=options), rounds)
    print(json.dumps({**settings, **numbers}))


def as_classifier(model: Path, path: Path, *, options: SessionOptions) -> Classifier:
    """Open a bare ONNX file as a classifier."""
    graph = onnx.load(model).graph
    frames, scores = graph.input[0], graph.output[0]
    side, classes = (value.type.tensor_type.shape.dim[1].dim_value for value in (frames, scores))
    spec = Spec(
        "overhead",
        "any",
        tuple(f"class {i}" for i in range(classes)),
        Preprocess(crop=side, resize=side),
        Input(side, side, frames.name),
        (Output(scores.name),),
    )
    bundle = Bundle.create(path, spec, files={"model.fp32.onnx": model}, provenance={})
    return Classifier(bundle, OnnxRuntimeBackend(options).open(bundle, variant="fp32"), "fp32")


def measure(classifier: Classifier, rounds: int) -> dict[str, object]:
    """Return the medians of both calls, of their paired ratios, and of our code alone."""
    source = classifier.bundle.spec.input
    batch = np.random.default_rng(0).integers(
        0, 256, (1, source.height, source.width, 3), dtype=np.uint8
    )
    bare_session = classifier.session._session  # the same session, without our code around it
    calls: dict[str, Callable[[], object]] = {
        "bare": lambda: bare_session.run(None, {source.name: batch}),
        "classifier": lambda: classifier.rank(classifier.probabilities(classifier.scores(batch))),
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + WARM_UP):
        for name in sorted(calls, reverse=bool(i % 2)):
            samples[name].append(timed(calls[name]))
    bare, whole = samples["bare"][WARM_UP:], samples["classifier"][WARM_UP:]
    ratios = [b / a for a, b in zip(bare, whole, strict=True)]
    classifier.session._session = Instant(bare_session.run(None, {source.name: batch}))
    own = statistics.median(timed(calls["classifier"]) for _ in range(500))
    return {
        "bare_ms": round(statistics.median(bare), 4),
        "classifier_ms": round(statistics.median(whole), 4),
        "paired_overhead": round(statistics.median(ratios) - 1, 5),
        "own_ms": round(own, 4),
        "own_share": round(own / statistics.median(bare), 5),
        "rounds": rounds,
    }


def timed(call: Callable[[], object]) -> float:
    """Return the milliseconds of one call."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


class Instant:
    """In place of ONNX Runtime's session: answers at once, so that only our code is timed."""

    def __init__(self, answer: list[np.ndarray]) -> None:
        self.answer = answer

    def run(self, _names: object, _feed: object) -> list[np.ndarray]:
        """Return the recorded answer."""
        return self.answer


if __name__ == "__main__":
    tyro.cli(main)
