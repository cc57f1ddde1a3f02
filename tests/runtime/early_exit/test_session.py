import numpy as np
import pytest

from finedge.bundle import Bundle
from finedge.errors import BundleError, UsageError
from finedge.ops import softmax
from finedge.runtime.backend import REDUCED_RANGE, SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.early_exit.open import open_early_exit
from finedge.runtime.fake import FakeBackend
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import OVERRIDE
from tests.runtime.early_exit.conftest import HEAD, MAIN

EXACT = OnnxRuntimeBackend(SessionOptions(threads=1, exact=True))
ROUNDING = 1e-5  # the scores of an exit are scaled by one factor in float32


def whole(bundle, batch, variant):
    return EXACT.open(bundle, variant=variant)(batch)


def at_temperature(scores, temperature):
    return softmax(scores.astype(np.float64) / temperature)


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_a_frame_that_no_exit_is_sure_of_gets_the_whole_models_answer(
    make_early_bundle, batch, variant, caplog
):
    bundle = make_early_bundle(threshold=None)
    session = open_early_exit(EXACT, bundle, variant=variant)
    assert f"no exit of {variant} is open" in caplog.text
    np.testing.assert_array_equal(session(batch)[MAIN], whole(bundle, batch, variant)[MAIN])
    assert session.taken.tolist() == [1] * len(batch)


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_only_rows_that_are_sure_leave_and_the_others_go_on(make_early_bundle, batch, variant):
    outputs = whole(make_early_bundle(), batch, variant)
    top = at_temperature(outputs[HEAD], 2.0).max(axis=1)
    threshold = float(np.sort(top)[5] + np.sort(top)[6]) / 2
    bundle = make_early_bundle(threshold=threshold)
    session = open_early_exit(EXACT, bundle, variant=variant)
    scores, sure = session(batch)[MAIN], top >= threshold
    assert sure.sum() == 6
    np.testing.assert_array_equal(session.taken, np.where(sure, 0, 1))
    np.testing.assert_array_equal(scores[~sure], outputs[MAIN][~sure])
    # The classifier divides by the model's temperature (1 here): these are the head's at its own.
    np.testing.assert_allclose(
        at_temperature(scores[sure], 1.0),
        at_temperature(outputs[HEAD][sure], 2.0),
        atol=ROUNDING,
    )


def test_frames_one_by_one_leave_as_they_do_in_a_batch(make_early_bundle, batch):
    session = open_early_exit(EXACT, make_early_bundle(threshold=0.5), variant="fp32")
    together, taken = session(batch)[MAIN], session.taken
    alone = np.concatenate([session(frame[None])[MAIN] for frame in batch])
    np.testing.assert_allclose(alone, together, atol=ROUNDING)
    np.testing.assert_array_equal(session.counts, 2 * np.bincount(taken, minlength=2))


def test_when_all_rows_leave_the_rest_does_not_run(make_early_bundle, batch):
    session = open_early_exit(EXACT, make_early_bundle(threshold=0.0), variant="fp32")
    session._segments[1].close()  # a run would raise
    assert session(batch)[MAIN].shape == (len(batch), 6)
    assert session.taken.tolist() == [0] * len(batch)


def test_the_classifier_uses_the_exits_and_names_the_segment(make_early_bundle, frames):
    bundle = make_early_bundle(threshold=0.0)
    with Classifier.open(
        bundle, variant="int8", backend="onnxruntime", early_exit=True
    ) as classifier:
        answers = classifier(frames)
        assert classifier.session.info.file == "model.int8.cpu.seg0.onnx"
    assert [answer.top[0].label for answer in answers] == list(bundle.spec.labels)


def test_segments_are_scaled_where_int8_products_saturate(make_early_bundle, batch, monkeypatch):
    monkeypatch.setenv(OVERRIDE, "saturating")
    bundle = make_early_bundle(threshold=None)
    session = open_early_exit(OnnxRuntimeBackend(), bundle, variant="int8")
    assert session.info.precision == REDUCED_RANGE
    expected = whole(bundle, batch, "int8")[MAIN]
    assert np.abs(session(batch)[MAIN] - expected).max() < 0.1 * np.abs(expected).max()


def test_a_bundle_without_segments_is_refused_with_the_fix(tiny_bundle):
    with pytest.raises(BundleError, match="no segments") as error:
        Classifier.open(tiny_bundle, variant="fp32", early_exit=True)
    assert error.value.exit_code == 4
    assert "--segments" in error.value.fix


def test_a_bundle_without_thresholds_is_refused_with_the_fix(make_early_bundle):
    with pytest.raises(BundleError, match="no thresholds for the exits of fp32") as error:
        Classifier.open(make_early_bundle(rules=False), variant="fp32", early_exit=True)
    assert "finedge calibrate" in error.value.fix


def test_a_backend_without_segments_is_refused_by_its_name(make_early_bundle):
    with pytest.raises(UsageError, match="backend 'fake' runs no segments") as error:
        open_early_exit(FakeBackend(), make_early_bundle(), variant="fp32")
    assert error.value.exit_code == 2


def test_a_missing_segment_is_a_typed_error(make_early_bundle):
    bundle = make_early_bundle()
    cut = Bundle.create(
        bundle.path.parent / "cut.finedge",
        bundle.spec,
        files={n: bundle.path / n for n in bundle.files if "seg1" not in n},
        provenance=bundle.provenance,
    )
    with pytest.raises(BundleError, match=r"holds no model\.fp32\.seg1\.onnx"):
        open_early_exit(EXACT, cut, variant="fp32")
