"""`finedge evaluate RUN --robustness`: the frames that the bundle would see, and no others."""

import numpy as np
import pytest
import torch

from finedge.data import open_dataset
from finedge.errors import UsageError
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.synthetic.perturb import PERTURBATIONS, perturb
from finedge.train.evaluate.accuracy import predictions
from finedge.train.evaluate.command import evaluate
from finedge.train.loader import EvaluationImages, normalise
from finedge.train.run import load_run


@pytest.fixture(scope="module")
def run(train, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train(
        out=out,
        data=pictures,
        model="plain",
        backbone="mobilenetv2_035",
        weights="none",
        size=32,
        batch_size=8,
        epochs=2,
        lr=0.02,
        device="cpu",
    )
    return out


def test_robustness_holds_every_perturbation_beside_the_clean_images(run):
    plain, found = evaluate(run, device="cpu"), evaluate(run, robustness=True, device="cpu")
    assert found["clean"] == {key: plain[key] for key in ("top1", "top5", "n", "wilson95")}
    assert found["classes"] == plain["classes"]
    assert set(found["robustness"]) == set(PERTURBATIONS)
    assert all(
        row["n"] == 12 and row["drop"] == pytest.approx(plain["top1"] - row["top1"], abs=2e-6)
        for row in found["robustness"].values()
    )


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbed_images_are_the_devices_pixels(pictures, run, name):
    loaded = load_run(run)
    items, how = open_dataset(pictures).split("test"), loaded.spec.preprocess
    frames = [
        preprocess(perturb(read_image(item.path), name, index=index), how)
        for index, item in enumerate(items)
    ]
    assert np.array_equal(
        frames,
        [frame for frame, _ in (EvaluationImages(items, how, name)[i] for i in range(len(items)))],
    )
    answers = predictions(
        loaded.model, items, loaded.spec, device=torch.device("cpu"), workers=2, perturbation=name
    )
    with torch.no_grad():
        best = loaded.model(normalise(torch.from_numpy(np.stack(frames)), how))["logits"].argmax(
            dim=1
        )
    assert (answers.ranks == 0).tolist() == [
        int(b) == item.label for b, item in zip(best, items, strict=True)
    ]


def test_fewer_images_are_spread_over_the_classes(run):
    found = evaluate(run, images=6, device="cpu")
    assert {row["n"] for row in found["classes"].values()} == {2}
    with pytest.raises(UsageError, match="--images"):
        evaluate(run, images=-1, device="cpu")
