import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from finedge.bundle import Bundle
from finedge.calib.command import calibrate
from finedge.calib.held_out.confidence import (
    BOUNDS,
    fit,
    fit_temperature,
    threshold,
)
from finedge.calib.held_out.images import MAX_IMAGES, MIN_IMAGES, held_out
from finedge.calib.options import Int8Options
from finedge.cli import main
from finedge.confidence import Confidence
from finedge.data import DataSet, Item, content_digest, open_dataset
from finedge.ops import softmax
from finedge.provenance import REDUCED
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.predict import predict
from tests.calib.conftest import LABELS, SIDE, pictures

TOLERANCE_T = 0.05  # of a temperature fitted to 20,000 drawn labels: measured 0.01 and less


def drawn(temperature, *, n=20_000, seed=0):
    """Return scores of a network that is `temperature` times too sure, and labels, of 10 classes.

    The labels are drawn from the probabilities that it should have had.
    """
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (n, 10))
    labels = (softmax(honest).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return (temperature * honest).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("kind", ["logits", "log_prob"])
def test_a_known_temperature_is_found(temperature, kind):
    scores, labels = drawn(temperature)
    if kind == "log_prob":
        scores = np.log(softmax(scores.astype(np.float64)))
    assert fit_temperature(scores, labels) == pytest.approx(temperature, rel=TOLERANCE_T)


def test_an_overconfident_network_is_cooled_and_then_means_what_it_says():
    scores, labels = drawn(4.0)
    found = fit(scores, labels)
    assert found.ece_before > 0.1
    assert found.ece_after < 0.02
    assert found.accuracy == float((scores.argmax(axis=1) == labels).mean())
    assert found.accuracy_accepted > found.accuracy
    assert found.n == len(labels)


def test_at_most_the_given_share_of_right_answers_is_rejected():
    scores, labels = drawn(2.0, n=3000)
    right = scores.argmax(axis=1) == labels
    for give_up in (0.0, 0.02, 0.1):
        found = fit(scores, labels, max_false_rejects=give_up)
        kept = (
            softmax(scores.astype(np.float64) / found.temperature).max(axis=1)
            >= found.to_json()["reject"]
        )
        assert give_up - 0.001 <= (right & ~kept).sum() / right.sum() <= give_up


@pytest.mark.parametrize(
    ("right", "give_up", "expected"),
    [
        ([True] * 10, 0.0, 0.1),
        ([True] * 10, 0.1, 0.2),
        ([True] * 10, 0.19, 0.2),
        ([True] * 10, 0.3, 0.4),  # 0.3 * 10 is a little less than 3 in floating point
        ([False] * 4 + [True] * 6, 0.0, 0.5),
        ([False] * 10, 0.02, 0.0),
    ],
)
def test_the_threshold_follows_its_rule(right, give_up, expected):
    p = np.arange(1, 11) / 10
    assert threshold(p[::-1], np.array(right)[::-1], max_false_rejects=give_up) == pytest.approx(
        expected
    )


def test_without_a_wrong_answer_the_temperature_stays_one(caplog):
    scores = 3 * np.eye(5, dtype=np.float32)
    assert fit_temperature(scores, np.arange(5)) == 1.0
    assert "stays 1" in caplog.text


def test_scores_that_say_nothing_end_at_the_bound_and_are_warned_of(caplog):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 100, (500, 10))
    assert fit_temperature(scores, rng.integers(0, 10, 500)) == pytest.approx(BOUNDS[1], rel=0.01)
    assert "cannot be trusted" in caplog.text


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """As `picture_folder`, with enough validation images to fit on."""
    root = tmp_path_factory.mktemp("pictured")
    for split, count, seed in (("train", 48, 2), ("val", 160, 4), ("test", 64, 3)):
        for index, (frame, label) in enumerate(zip(*pictures(count, seed=seed), strict=True)):
            file = root / split / LABELS[label] / f"{index:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), frame[..., ::-1])
    return root


def test_only_validation_images_are_held_out(pictured):
    sample = held_out(open_dataset(pictured))
    assert len(sample.items) == 160
    assert {i.path.parts[-3] for i in sample.items} == {"val"}
    assert sample.digests == tuple(content_digest(i.path) for i in sample.items)


def test_copies_of_training_and_test_images_are_left_out(pictured, tmp_path, caplog):
    root = shutil.copytree(pictured, tmp_path / "copy")
    for split in ("train", "test"):
        shutil.copy(
            next((root / split / "level").iterdir()), root / "val" / "level" / f"from_{split}.png"
        )
    sample = held_out(open_dataset(root))
    assert len(sample.items) == 160
    assert not any("from_" in i.path.name for i in sample.items)
    assert "2 image(s)" in caplog.text


def test_a_large_split_is_cut_evenly(pictured):
    data = open_dataset(pictured)
    many = DataSet(
        data.root, data.layout, data.labels, {**data.splits, "val": data.split("val") * 10}
    )
    sample = held_out(many)
    assert len(sample.items) == MAX_IMAGES
    assert set(np.bincount([i.label for i in sample.items])) == {MAX_IMAGES // len(LABELS)}


@pytest.mark.parametrize("count", [0, MIN_IMAGES - 1])
def test_too_few_images_fit_nothing_and_the_log_says_so(pictured, count, caplog):
    data = open_dataset(pictured)
    few = DataSet(
        data.root, data.layout, data.labels, {**data.splits, "val": data.split("val")[:count]}
    )
    assert held_out(few) is None
    assert f"{count} held-out images" in caplog.text
    assert held_out(replace(few, cut={"seed": 0, "val": 0.0})) is None
    assert "train with val = 0.1 for a fit" in caplog.text


def test_calibrating_fits_every_variant_and_the_classifier_uses_it(bundle, pictured, capsys):
    assert (
        main(
            [
                "calibrate",
                str(bundle.path),
                "--data",
                str(pictured),
                "--images",
                "16",
                "--max-false-rejects",
                "0.1",
            ]
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    printed, accuracy = result["confidence"], result["accuracy"]
    loaded = Bundle.load(bundle.path)
    assert loaded.provenance["calibrate"]["confidence"] == printed
    assert loaded.provenance["calibrate"]["accuracy"] == accuracy
    assert set(accuracy) == {"fp32", "int8", REDUCED}
    assert loaded.calibration.accuracy["fp32"].top1_change == 0
    assert {v: r["accuracy"] for v, r in printed.items()} == {
        v: accuracy[v]["top1"] for v in printed
    }
    assert {v: r["file"] for v, r in printed.items()} == {
        "fp32": "model.fp32.onnx",
        "int8": "model.int8.cpu.onnx",
    }
    for variant, record in printed.items():
        assert (record["n"], record["split"], record["give_up"]) == (160, "val", 0.1)
        assert record["ece_after"] <= record["ece_before"]
        assert record["accuracy_accepted"] >= record["accuracy"]
        assert loaded.confidence(variant) == Confidence(record["temperature"], record["reject"])
    frames = [*pictures(40, seed=9)[0], np.full((SIDE, SIDE, 3), 120, np.uint8)]
    with Classifier.open(loaded, variant="fp32") as classifier:
        answers = classifier(frames)
    assert [a.unknown for a in answers] == [a.top[0].p < printed["fp32"]["reject"] for a in answers]


def test_the_accuracy_is_what_it_was(bundle, pictured):
    items = open_dataset(pictured).split("test")
    with Classifier.open(bundle, variant="fp32") as classifier:
        before = predict(classifier, items)
    calibrate(bundle.path, data=pictured, int8=Int8Options(images=8))
    with Classifier.open(bundle.path, variant="fp32") as classifier:
        after = predict(classifier, items)
        assert classifier.confidence is not None
    assert np.array_equal(before.ranked, after.ranked)
    assert before.record() == after.record()


def test_without_enough_images_the_bundle_works_as_before(bundle, picture_folder):
    assert (
        calibrate(bundle.path, data=picture_folder, int8=Int8Options(images=8))["confidence"] == {}
    )
    with Classifier.open(bundle.path, variant="int8") as classifier:
        assert not any(a.unknown for a in classifier(list(pictures(8, seed=9)[0])))


def test_an_impossible_share_is_refused_before_anything_is_done(bundle, pictured):
    command = ["calibrate", str(bundle.path), "--data", str(pictured)]
    assert main([*command, "--max-false-rejects", "1.5"]) == 2
    assert Bundle.load(bundle.path) == bundle


def test_an_unreadable_validation_image_is_left_out(pictured, tmp_path):
    root = shutil.copytree(pictured, tmp_path / "copy")
    broken = next((root / "val" / "level").iterdir())
    broken.write_bytes(b"not an image")
    sample = held_out(open_dataset(root))
    assert Item(broken, LABELS.index("level")) not in sample.items
    assert len(sample.items) == 159
