import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finedge.data import open_dataset
from finedge.errors import SystemProblem, UsageError
from finedge.train.evaluate.command import evaluate
from finedge.train.loader import EvaluationImages, normalise
from finedge.train.quick import feature_cache
from finedge.train.quick.feature_cache import FeatureCache
from finedge.train.quick.scores import cached_scores
from finedge.train.run import load_run
from finedge.train.step import TrainingStep

HALF = 2e-3  # of the largest score: cached maps are float16, which rounds by 5e-4


@pytest.fixture(scope="module")
def quick_run(train, pictures, tmp_path_factory):
    """A run of --quick, and its result."""
    out = tmp_path_factory.mktemp("quick") / "run"
    return out, train(out=out, **options(pictures))


def options(pictures):
    return {
        "data": pictures,
        "model": "cnl",
        "backbone": "mobilenetv2_035",
        "weights": "none",
        "size": 32,
        "batch_size": 8,
        "epochs": 3,
        "lr": 0.01,
        "quick": True,
        "device": "cpu",
        "workers": 1,
    }


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_ends_in_a_run_whose_backbone_is_unchanged(quick_run, train, pictures, tmp_path):
    out, result = quick_run
    assert result["epochs"] == 3
    assert len(rows(out)) == 3
    assert load_run(out).record["recipe"]["size"] == 32
    train(out=tmp_path / "start", **{**options(pictures), "epochs": 1, "lr": 1e-9})
    ends, starts = (load_file(p / "checkpoint.safetensors") for p in (out, tmp_path / "start"))
    for name, tensor in ends.items():
        if name.startswith("model.backbone."):
            assert torch.equal(tensor, starts[name])
    trained = "model.classifier.weight"
    assert not torch.allclose(ends[trained], starts[trained], atol=1e-5)


@pytest.mark.parametrize(("model", "freeze"), [("plain", 3)])
def test_val_on_cached_maps_is_val_of_the_live_network(
    train, pictures, tmp_path, monkeypatch, model, freeze
):
    def interrupted(*words, **named):
        scores.append(cached_scores(*words, **named))
        if len(scores) == 2:
            raise KeyboardInterrupt
        return scores[-1]

    scores, out = [], tmp_path / "run"
    monkeypatch.setattr("finedge.train.quick.trainer.cached_scores", interrupted)
    lite0 = {"backbone": "efficientnet_lite0", "weights": "imagenet"}
    change = {"model": model, "freeze": freeze, "ema": 0.5, "size": 64}
    with pytest.raises(KeyboardInterrupt):
        train(out=out, **{**options(pictures), **lite0, **change})
    run = load_run(out)  # after epoch 1
    images = EvaluationImages(open_dataset(pictures).split("val"), run.spec.preprocess)
    frames = torch.from_numpy(np.stack([frame for frame, _ in images]))
    with torch.no_grad():
        live = run.model(normalise(frames, run.spec.preprocess))[run.spec.main.name]
    assert (scores[0] - live).abs().max() < HALF * live.abs().max()
    measured = evaluate(out, split="val", device="cpu")
    assert (measured["top1"], measured["top5"]) == (val_of(out)["top1"], val_of(out)["top5"])


def val_of(run):
    return rows(run)[-1]["val"]


def test_its_accuracy_is_that_of_evaluate(quick_run):
    out, result = quick_run
    measured = evaluate(out, split="val", device="cpu")
    assert (measured["top1"], measured["top5"]) == (result["top1"], result["top5"])


def test_an_interrupted_run_is_resumed_on_the_same_maps(
    quick_run, train, pictures, tmp_path, monkeypatch
):
    taken, real = [], TrainingStep._loss

    def interrupted(self, batch):
        taken.append(batch)
        if len(taken) == 6:
            raise KeyboardInterrupt
        return real(self, batch)

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(out=broken, **options(pictures))
    train(out=broken, resume=True, device="cpu")
    assert len(list((tmp_path / "feature_maps").iterdir())) == 1
    whole, resumed = (load_file(p / "checkpoint.safetensors") for p in (quick_run[0], broken))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_starts_from_all_weights_of_another(quick_run, train, pictures, tmp_path):
    fine = {**options(pictures), "quick": False, "weights": str(quick_run[0]), "epochs": 1}
    train(out=tmp_path / "fine", **{**fine, "lr": 1e-9})
    before, after = (
        load_file(p / "checkpoint.safetensors") for p in (quick_run[0], tmp_path / "fine")
    )
    name = "model.classifier.weight"
    torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=0)


def test_a_run_of_another_model_gives_its_backbone(quick_run, train, pictures, tmp_path):
    other = {**options(pictures), "model": "plain", "weights": str(quick_run[0]), "epochs": 1}
    train(out=tmp_path / "plain", **other)
    name = "model.backbone.conv_stem.weight"
    before, after = (
        load_file(p / "checkpoint.safetensors")[name] for p in (quick_run[0], tmp_path / "plain")
    )
    assert torch.equal(before, after)
    with pytest.raises(UsageError, match="its backbone is mobilenetv2_035"):
        train(out=tmp_path / "x", **{**other, "backbone": "resnet18"})


@pytest.mark.parametrize("change", [{"model": "ca"}, {"compile": True}])
def test_what_cannot_use_cached_maps_is_refused(train, pictures, tmp_path, change):
    with pytest.raises(UsageError, match="--quick with"):
        train(out=tmp_path / "run", **{**options(pictures), **change})
    assert not (tmp_path / "run").exists()


def test_the_maps_are_not_computed_for_a_finished_run(quick_run, train, monkeypatch):
    monkeypatch.setattr(FeatureCache, "maps", None)
    assert train(out=quick_run[0], resume=True, device="cpu")["epochs"] == 3


def test_without_room_for_the_maps_no_run_appears(train, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_free_bytes", lambda _: 1 << 20)
    with pytest.raises(SystemProblem, match="of feature maps, and 1 MiB free"):
        train(out=tmp_path / "run", **options(pictures))
    assert not (tmp_path / "run").exists()


def test_stages_that_are_not_frozen_train_on_the_same_maps(
    quick_run, train, pictures, tmp_path, caplog
):
    out = tmp_path / "tail"
    train(out=out, **{**options(pictures), "epochs": 1, "freeze": 3})
    assert "the frozen backbone is random" in caplog.text
    train(out=out, resume=True, epochs=2, device="cpu")
    assert len(list((tmp_path / "feature_maps").iterdir())) == 1
    before, after = (load_file(p / "checkpoint.safetensors") for p in (quick_run[0], out))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    blocks = {name.removeprefix("model.backbone.") for name in changed if "backbone" in name}
    last = load_run(out).model.backbone.stages[2]
    assert blocks
    assert all(block > last for block in blocks if block.startswith("blocks"))
