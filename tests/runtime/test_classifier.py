"""The classifier: frames of any size in, ranked labels and times out, over every backend."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

from finedge.confidence import KEY, STAGE
from finedge.errors import BackendMissing, BundleError, FinedgeError, UsageError
from finedge.runtime.backend import BACKENDS, load_backend
from finedge.runtime.classifier import Classifier, order, probabilities
from finedge.runtime.fake import FakeBackend


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_names_each_colour_of_a_batch_of_different_sizes(tiny_bundle, frames, variant):
    with Classifier.open(tiny_bundle, variant=variant) as classifier:
        predictions = classifier(frames)
    assert [p.top[0].label for p in predictions] == list(tiny_bundle.spec.labels)


def test_opens_a_folder_and_prefers_int8(tiny_bundle):
    with Classifier.open(tiny_bundle.path) as classifier:
        assert (classifier.variant, classifier.session.info.file) == ("int8", "model.int8.cpu.onnx")


def test_auto_is_fp32_without_int8(make_bundle):
    with Classifier.open(make_bundle(files=("model.fp32.onnx",))) as classifier:
        assert (classifier.variant, classifier.session.info.file) == ("fp32", "model.fp32.onnx")


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_is_sorted_sums_to_one_and_names_the_label_of_its_index(tiny_bundle, frames, backend):
    reason = load_backend(backend).why_not()
    if reason:
        pytest.skip(reason)
    classifier = Classifier.open(tiny_bundle, backend=backend, topk=99)
    for prediction in classifier(frames):
        p = [label.p for label in prediction.top]
        assert p == sorted(p, reverse=True)
        assert sum(p) == pytest.approx(1, abs=1e-6)
        assert all(r.label == tiny_bundle.spec.labels[r.index] for r in prediction.top)
        assert len(prediction.top) == len(tiny_bundle.spec.labels)


def test_topk_limits_the_answer(tiny_bundle, frames):
    assert [len(p.top) for p in Classifier.open(tiny_bundle, topk=2)(frames[:2])] == [2, 2]


def test_a_batch_answers_as_its_frames_alone(tiny_bundle, frames):
    classifier = Classifier.open(tiny_bundle, variant="fp32")
    together, alone = classifier(frames), [classifier([f])[0] for f in frames]
    for a, b in zip(together, alone, strict=True):
        assert [r.index for r in a.top] == [r.index for r in b.top]
        np.testing.assert_allclose([r.p for r in a.top], [r.p for r in b.top], rtol=1e-4)


def test_the_times_of_the_stages_are_measured(tiny_bundle, frames):
    ms = Classifier.open(tiny_bundle)(frames[:1])[0].ms
    assert min(ms.preprocess, ms.infer, ms.post) > 0


def test_no_frames_give_no_predictions(tiny_bundle):
    assert Classifier.open(tiny_bundle)([]) == []


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((40, 40, 3), np.float32),
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
    ],
    ids=["float", "grey", "alpha", "empty"],
)
def test_refuses_what_is_no_rgb_frame(tiny_bundle, frame):
    with pytest.raises(UsageError, match="RGB"):
        Classifier.open(tiny_bundle)([frame])


LOGITS = np.array([4, 3, 2, 1, 0, -1], np.float32)


@pytest.mark.parametrize(("reject", "unknown"), [(0.0, False), (0.41, False), (0.42, True)])
def test_temperature_changes_probabilities_and_the_threshold_abstains(
    tiny_bundle, frames, reject, unknown
):
    fitted = tiny_bundle.extend(STAGE, {}, {KEY: {"fp32": {"temperature": 2.0, "reject": reject}}})
    backend = FakeBackend(answer={"logits": LOGITS})
    plain, tempered = (
        Classifier(bundle, backend.open(bundle, variant="fp32"), "fp32", topk=6)(frames[:1])[0]
        for bundle in (tiny_bundle, fitted)
    )
    assert [r.index for r in plain.top] == [r.index for r in tempered.top]
    np.testing.assert_allclose(
        [r.p for r in tempered.top], probabilities(LOGITS[None] / 2)[0], rtol=1e-6
    )
    assert tempered.top[0].p == pytest.approx(0.4141, abs=1e-4)
    assert (plain.unknown, tempered.unknown) == (False, unknown)


def test_a_variant_that_was_not_fitted_keeps_its_own_numbers(tiny_bundle, frames):
    fitted = tiny_bundle.extend(STAGE, {}, {KEY: {"int8": {"temperature": 2.0, "reject": 1.0}}})
    with Classifier.open(fitted, variant="fp32") as classifier:
        assert not any(p.unknown for p in classifier(frames))
    with Classifier.open(fitted, variant="int8") as classifier:
        assert all(p.unknown for p in classifier(frames))


def test_refuses_a_model_that_answers_nan(tiny_bundle, frames):
    answer = {"logits": np.full(6, np.nan, np.float32)}
    classifier = Classifier(
        tiny_bundle, FakeBackend(answer=answer).open(tiny_bundle, variant="fp32"), "fp32"
    )
    with pytest.raises(FinedgeError, match="not finite"):
        classifier(frames)


def test_softmax_serves_logits_and_log_probabilities():
    logits = np.array([[1.0, 2.0, 4.0], [1000.0, 1000.0, -1000.0]], np.float32)
    p = probabilities(logits)
    np.testing.assert_allclose(p[1], [0.5, 0.5, 0], atol=1e-6)
    unnormalised = np.log(p[:1]) - 3
    np.testing.assert_allclose(probabilities(unnormalised), p[:1], rtol=1e-5)
    np.testing.assert_allclose(probabilities(logits, temperature=2.0), probabilities(logits / 2))


def test_equal_scores_rank_by_index():
    assert order(np.array([[0.2, 0.3, 0.3, 0.2]])).tolist() == [[1, 2, 0, 3]]


def test_a_label_may_come_first_and_the_rest_by_probability(tiny_bundle):
    classifier = Classifier(tiny_bundle, FakeBackend().open(tiny_bundle, variant="fp32"), "fp32", 3)
    p = np.array([[0.1, 0.4, 0.15, 0.25, 0.06, 0.04]])
    assert [r.index for r in classifier.rank(p)[0]] == [1, 3, 2]
    assert [r.index for r in classifier.rank(p, first=1)[0]] == [1, 3, 2]
    (top,) = classifier.rank(p, first=5)
    assert [(r.index, r.p) for r in top] == [(5, 0.04), (1, 0.4), (3, 0.25)]


@pytest.mark.parametrize(
    "module",
    [
        "finedge.runtime.backend",
        "finedge.runtime.classifier",
        "finedge.runtime.stream.pipeline",
        "finedge.runtime.stream.results",
        "finedge.runtime.stream.stream",
    ],
)
def test_the_examples_in_docstrings_run(module, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])  # they open examples/birds.finedge
    outcome = doctest.testmod(importlib.import_module(module), report=True)
    assert outcome.attempted
    assert not outcome.failed


def test_a_damaged_bundle_an_unknown_backend_and_a_bad_topk_are_refused(tiny_bundle):
    with pytest.raises(UsageError, match="onnxruntime"):
        Classifier.open(tiny_bundle, backend="onnxruntme")
    with pytest.raises(UsageError, match="topk"):
        Classifier.open(tiny_bundle, topk=0)
    path = tiny_bundle.file("model.fp32.onnx")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        Classifier.open(tiny_bundle.path)


def test_a_backend_that_cannot_run_says_why(tiny_bundle, monkeypatch):
    monkeypatch.setattr(FakeBackend, "why_not", lambda self: "needs a unicorn")
    with pytest.raises(BackendMissing, match="needs a unicorn"):
        Classifier.open(tiny_bundle, backend="fake")
