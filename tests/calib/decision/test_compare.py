"""The decision set, the comparison with the float model, and the choice between methods."""

import logging
import shutil

import numpy as np
import pytest

from finedge.bundle import Bundle
from finedge.calib.command import calibrate
from finedge.calib.decision.compare import Comparison, Decision, compare_scores
from finedge.calib.decision.decision_set import DecisionImages, draw_samples
from finedge.calib.decision.method import best_method
from finedge.calib.int8_files import CalibratedModel, cpu_model, quantize
from finedge.calib.options import MIN_IMAGES, Int8Options
from finedge.calib.plan import QuantizationPlan
from finedge.calib.ranges.observe import collect_curve
from finedge.calib.record import Int8Record
from finedge.data import open_dataset
from finedge.errors import DataError
from tests.calib.conftest import SPEC, batches, pictures


@pytest.fixture(scope="module")
def calibrated(tiny):
    methods = ("max", "percentile", "entropy", "mse")
    curve = collect_curve(tiny.model, batches(pictures(64, seed=2)[0]), methods=methods, sizes=[16])
    return CalibratedModel(tiny.model, SPEC, curve[-1], curve)


@pytest.fixture(scope="module")
def decision(tiny):
    return Decision(tiny.model, SPEC, DecisionImages(tiny.frames[:64], tiny.labels[:64]))


def _comparison(divergence):
    right = np.ones(len(divergence), bool)
    return Comparison(np.asarray(divergence, float), right, right, right)


def test_both_sets_are_training_images_and_share_none(picture_folder):
    samples = draw_samples(open_dataset(picture_folder), images=16, decision_images=32)
    assert (len(samples.calibration.items), len(samples.decision.items)) == (16, 32)
    assert not set(samples.calibration.digests) & set(samples.decision.digests)
    assert {i.path.parts[-3] for i in samples.decision.items} == {"train"}


def test_a_copy_of_a_calibration_image_does_not_decide(picture_folder, tmp_path):
    copy = shutil.copytree(picture_folder, tmp_path / "copy")
    first = draw_samples(open_dataset(copy), images=8, decision_images=40)
    for index, item in enumerate(first.calibration.items):
        shutil.copy(item.path, item.path.with_name(f"copy{index}.png"))
    again = draw_samples(open_dataset(copy), images=8, decision_images=48)
    assert not set(again.calibration.digests) & set(again.decision.digests)
    assert len(again.decision.items) < 48


def test_a_decision_image_that_is_also_tested_on_is_refused(picture_folder, tmp_path):
    copy = shutil.copytree(picture_folder, tmp_path / "copy")
    samples = draw_samples(open_dataset(copy), images=8, decision_images=40)
    shutil.copy(samples.decision.items[0].path, copy / "test" / "level" / "again.png")
    with pytest.raises(DataError, match="also in the evaluated splits"):
        draw_samples(open_dataset(copy), images=8, decision_images=40)


def test_too_few_images_give_no_decision_set(picture_folder):
    samples = draw_samples(open_dataset(picture_folder), images=48, decision_images=48)
    assert samples.decision is None
    assert len(samples.calibration.items) == 48


def test_equal_scores_agree_without_divergence():
    scores = np.array([[1, 2], [3, 0]], np.float32)
    comparison = compare_scores(scores, scores, labels=np.array([1, 1]))
    assert (comparison.kl, comparison.agreement, comparison.top1) == (0, 1, 0.5)
    assert (comparison.drop, comparison.p_value) == (0, 1)


def test_the_divergence_is_kl_in_nats():
    p, q = np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]])
    scores = [np.log(x).astype(np.float32) for x in (p, q)]
    comparison = compare_scores(*scores, labels=np.array([1]))
    assert comparison.kl == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)


def test_logits_that_leave_no_probability_still_have_a_finite_divergence():
    far = np.array([[1e4, 0]], np.float32)
    assert np.isfinite(compare_scores(far, far[:, ::-1], labels=np.array([0])).kl)


def test_a_difference_within_chance_goes_to_the_simpler_method():
    noise = np.random.default_rng(0).exponential(size=(2, 200))
    assert best_method({"max": _comparison(noise[0]), "mse": _comparison(noise[1])}) == "max"
    assert best_method({"max": _comparison(noise[0]), "mse": _comparison(noise[0])}) == "max"


def test_a_method_that_is_closer_on_most_images_is_chosen():
    noise = np.random.default_rng(0).exponential(size=200)
    closer, closest = _comparison(0.9 * noise), _comparison(0.5 * noise)
    comparisons = {"max": _comparison(noise), "entropy": closer, "mse": closest}
    assert best_method(comparisons) == "mse"


def test_an_int8_model_is_compared_with_its_float_model(calibrated, decision):
    comparison = decision.compare(cpu_model(calibrated, QuantizationPlan("mse")))
    assert 0 < comparison.kl < 0.05
    assert comparison.agreement >= 0.95
    assert decision.compare(calibrated.model).kl == 0


def test_a_plan_makes_the_same_files_as_often_as_it_is_asked(calibrated):
    layer = quantize(calibrated, QuantizationPlan()).reports["model.int8.onnx"].int8[1]
    plan = QuantizationPlan(keep_float=frozenset({layer}))
    first, second = (quantize(calibrated, plan) for _ in range(2))
    assert first.files == second.files
    assert all(layer in report.stays_float for report in first.reports.values())
    assert first.plan.to_json() == {
        "method": "max",
        "keep_float": [layer],
        "bias_correction": True,
        "attention": "scores",
    }


def test_more_images_only_widen_the_range_of_max(calibrated):
    few, many = (tables["max"].ranges for tables in calibrated.curve)
    assert [tables.images for tables in calibrated.curve] == [16, 64]
    assert all(few[name].amax <= many[name].amax for name in many)


def test_auto_records_all_methods_the_curve_and_the_reason(bundle, picture_folder):
    options = Int8Options(method="auto", images=16, decision_images=32, curve=True)
    result = calibrate(bundle.path, data=picture_folder, int8=options)
    loaded = Bundle.load(bundle.path)
    record = loaded.calibration
    decision = record.decision
    assert [row.method for row in decision.methods] == ["max", "percentile", "entropy", "mse"]
    assert {row.n for row in (*decision.methods, *decision.curve)} == {32}
    assert [row.images for row in decision.curve] == [16]
    assert record.method == result["method"] in {row.method for row in decision.methods}
    assert not set(record.images_sha256) & set(decision.images_sha256)
    assert decision.reason == result["decision"]["reason"] != ""
    whole = Int8Record.from_json(loaded.provenance["calibrate"])
    assert (whole.decision, whole.plan["method"]) == (decision, record.method)


def test_auto_without_enough_images_uses_max_and_warns(bundle, picture_folder, caplog):
    options = Int8Options(method="auto", images=48)
    with caplog.at_level(logging.WARNING):
        result = calibrate(bundle.path, data=picture_folder, int8=options)
    assert result["method"] == "max"
    assert f"at least {MIN_IMAGES} more" in caplog.text
    assert "max is used" in Bundle.load(bundle.path).calibration.decision.reason
