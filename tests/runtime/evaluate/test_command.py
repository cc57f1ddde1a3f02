"""`finedge evaluate`: the whole split, the recorded splits, and no silent change of data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from finedge.errors import BundleError, DataError, SystemProblem, UsageError
from finedge.image import read_image
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.command import evaluate
from finedge.runtime.evaluate.labelled import SplitOptions, bundle_dataset
from finedge.runtime.evaluate.predict import predict
from finedge.synthetic.perturb import PERTURBATIONS, perturb


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_recorded_data_give_the_known_accuracy(tiny_bundle, variant):
    result = evaluate(tiny_bundle.path, variant=variant)
    assert (result["top1"], result["top5"], result["n"], result["variant"], result["split"]) == (
        1.0,
        1.0,
        18,
        variant,
        "test",
    )
    assert result["file"] == {"fp32": "model.fp32.onnx", "int8": "model.int8.cpu.onnx"}[variant]
    assert result["backend"] == "onnxruntime"


def test_a_wrong_label_costs_exactly_its_image(tiny_bundle, tiny_data):
    (tiny_data / "test" / "red" / "0.png").rename(tiny_data / "test" / "blue" / "9.png")
    result = evaluate(tiny_bundle.path, dataset=SplitOptions(data=tiny_data))
    assert result["top1"] == round(17 / 18, 6)
    assert result["wilson95"][0] < 17 / 18 < result["wilson95"][1]


def test_a_wrong_answer_is_a_worst_pair_with_its_image(tiny_bundle, tiny_data):
    (tiny_data / "test" / "red" / "0.png").rename(tiny_data / "test" / "blue" / "9.png")
    (pair,) = evaluate(tiny_bundle.path)["worst_pairs"]
    assert (pair["class"], pair["taken_for"], pair["images"]) == ("blue", "red", 1)
    assert pair["example"] == "test/blue/9.png"


def test_a_page_is_written_where_it_is_asked_for(tiny_bundle, tmp_path):
    pytest.importorskip("jinja2")
    result = evaluate(tiny_bundle.path, page=tmp_path / "new" / "page.html")
    assert result["page"] == str(tmp_path / "new" / "page.html")
    assert "100.0 % top-1" in (tmp_path / "new" / "page.html").read_text()
    assert "page" not in evaluate(tiny_bundle.path)


def test_a_page_without_jinja2_names_the_extra_before_any_work(tiny_bundle, monkeypatch):
    monkeypatch.setattr("finedge.pages.extra.find_spec", lambda name: None)
    monkeypatch.setattr("finedge.runtime.evaluate.command.Bundle", None)
    with pytest.raises(SystemProblem, match=r"finedge\[report\]"):
        evaluate(tiny_bundle.path, page=tiny_bundle.path / "page.html")


def test_an_unreadable_image_is_left_out_or_refused_by_its_share(tiny_bundle, tiny_data):
    (tiny_data / "test" / "red" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        evaluate(tiny_bundle.path)
    for i in range(60):
        shutil.copy(
            tiny_data / "test" / "red" / "1.png", tiny_data / "test" / "red" / f"copy{i}.png"
        )
    assert evaluate(tiny_bundle.path)["n"] == 18 - 1 + 60


def test_predictions_are_the_classifiers_in_the_order_of_the_images(tiny_bundle):
    items = bundle_dataset(tiny_bundle).split("val")
    with Classifier.open(tiny_bundle, variant="fp32") as classifier:
        answers = predict(classifier, items)
        one = classifier([read_image(items[5].path)])[0]
    assert answers.labels.tolist() == [i.label for i in items]
    assert answers.ranked.shape == answers.probabilities.shape == (12, 5)
    assert answers.ranked[5].tolist() == [r.index for r in one.top]
    np.testing.assert_allclose(answers.probabilities[5], [r.p for r in one.top], rtol=1e-6)
    assert answers.correct.all()


def test_other_labels_are_refused_by_name(tiny_bundle, tiny_data):
    for split in ("train", "val", "test"):
        (tiny_data / split / "green").rename(tiny_data / split / "greem")
    with pytest.raises(DataError, match="does not know: greem"):
        evaluate(tiny_bundle.path, dataset=SplitOptions(data=tiny_data))


def test_fewer_classes_are_measured_as_what_they_are(tiny_bundle, tiny_data):
    whole = evaluate(tiny_bundle.path)
    for split in ("train", "val", "test"):
        shutil.rmtree(tiny_data / split / "blue")  # the first: the numbers of all others move
    result = evaluate(tiny_bundle.path)
    assert (whole["n"], result["n"]) == (18, 15)
    assert whole["top1"] == result["top1"] == 1


def test_recorded_images_that_are_gone_ask_for_a_folder(tiny_bundle, tiny_data):
    shutil.rmtree(tiny_data)
    with pytest.raises(UsageError, match="--data"):
        evaluate(tiny_bundle.path)


def test_an_unknown_split_and_a_folder_that_is_no_bundle_are_data_errors(tiny_bundle, tmp_path):
    with pytest.raises(DataError, match="tset"):
        evaluate(tiny_bundle.path, dataset=SplitOptions(split="tset"))
    with pytest.raises(BundleError, match="not a bundle"):
        evaluate(tmp_path)


def test_the_command_prints_one_json_object(tiny_bundle):
    done = subprocess.run(
        [sys.executable, "-m", "finedge", "evaluate", str(tiny_bundle.path), "--variant", "int8"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top1"] == 1.0


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_robustness_names_every_perturbation_and_what_it_costs(tiny_bundle, variant):
    result = evaluate(tiny_bundle.path, variant=variant, robustness=True)
    assert set(result["robustness"]) == set(PERTURBATIONS)
    assert result["clean"]["top1"] == 1.0
    for name, row in result["robustness"].items():
        assert row["n"] == 18, name
        assert row["drop"] == round(1 - row["top1"], 6), name
    # The frames are noise around one colour: a warp leaves it as it is.
    assert {row["drop"] for name, row in result["robustness"].items() if name != "clutter"} == {0.0}
    assert result == evaluate(tiny_bundle.path, variant=variant, robustness=True)


def test_perturbed_frames_go_through_the_same_preprocessing(tiny_bundle):
    items = bundle_dataset(tiny_bundle).split("test")
    with Classifier.open(tiny_bundle, variant="fp32") as classifier:
        answers = predict(classifier, items, perturbation="clutter")
        frames = [
            perturb(read_image(item.path), "clutter", index=index)
            for index, item in enumerate(items)
        ]
        np.testing.assert_allclose(
            answers.probabilities[:, 0],
            [classifier([frame])[0].top[0].p for frame in frames],
            rtol=1e-6,
        )
        assert not np.allclose(answers.probabilities, predict(classifier, items).probabilities)


def test_fewer_images_are_spread_over_the_classes(tiny_bundle):
    assert evaluate(tiny_bundle.path, images=6)["n"] == 6
    assert evaluate(tiny_bundle.path, images=500)["n"] == 18
    with pytest.raises(UsageError, match="--images"):
        evaluate(tiny_bundle.path, images=-1)
