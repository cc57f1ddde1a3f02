"""The fake backend: it returns the given scores and keeps its batches."""

from __future__ import annotations

import time

import numpy as np
import pytest

from finedge.errors import BundleError
from finedge.runtime.classifier import Classifier
from finedge.runtime.fake import FakeBackend


def grey(*values):
    return np.stack([np.full((32, 32, 3), v, np.uint8) for v in values])


def test_answers_each_frame_with_the_row_and_keeps_the_batches(tiny_bundle):
    backend = FakeBackend(answer={"logits": np.arange(6, dtype=np.float32)})
    session = backend.open(tiny_bundle, variant="int8")
    np.testing.assert_array_equal(session(grey(1, 2))["logits"], [range(6), range(6)])
    session(grey(3))
    assert [b.shape[0] for b in backend.inputs] == [2, 1]
    np.testing.assert_array_equal(backend.inputs[1], grey(3))


def test_answers_with_a_function_of_the_frame(tiny_bundle):
    backend = FakeBackend(
        answer=lambda frame: {"logits": np.eye(6, dtype=np.float32)[frame[0, 0, 0]]}
    )
    scores = backend.open(tiny_bundle, variant="fp32")(grey(4, 0))["logits"]
    assert scores.argmax(axis=1).tolist() == [4, 0]


def test_names_the_class_nearest_to_the_grey_level_by_default(tiny_bundle):
    with Classifier.open(tiny_bundle, backend="fake") as classifier:
        assert [p.top[0].index for p in classifier(list(grey(0, 51, 255)))] == [0, 1, 5]


def test_the_answer_and_the_latency_can_change_while_open(tiny_bundle):
    backend = FakeBackend()
    session = backend.open(tiny_bundle, variant="fp32")
    backend.answer, backend.latency_s = {"logits": np.ones(6, np.float32)}, 0.02
    start = time.perf_counter()
    assert session(grey(9))["logits"].tolist() == [[1.0] * 6]
    assert time.perf_counter() - start >= 0.02  # sleep() guarantees at least this


def test_lacks_what_the_bundle_lacks(make_bundle):
    with pytest.raises(BundleError, match="calibrate"):
        FakeBackend().open(make_bundle(files=("model.fp32.onnx",)), variant="int8")
