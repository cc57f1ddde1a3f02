"""`timm:NAME` as a backbone. timm's own test networks have 0.03 to 0.5 million parameters."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from finedge.cli import main
from finedge.errors import DataError, SystemProblem, UsageError
from finedge.train import backbones
from finedge.train.backbones.timm_nets import outline
from finedge.train.models import MODELS, build_model

SMALL = ("test_resnet", "test_efficientnet", "test_convnext")
# One network for each way in which timm lists the modules of a chain, with its strides.
CHAINS = {
    "mobilenetv3_small_050": [2, 4, 8, 16, 32],
    "test_convnext": [4, 8, 16, 32],
    "densenet121": [2, 4, 8, 16, 32],
    "vgg11_bn": [2, 4, 8, 16, 32],
    "rexnet_100": [2, 4, 8, 16, 32],
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_chain_has_the_strides_and_channels_that_timm_lists(name):
    with torch.device("meta"):
        backbone = backbones.make(f"timm:{name}", weights="none").eval()
        _, tapped = backbone.run(torch.empty(1, 3, 224, 224), taps=backbone.chain)
        info = timm.create_model(name, features_only=True).feature_info
    assert [224 // tapped[stage].shape[2] for stage in backbone.stages] == CHAINS[name]
    channels = [backbone.channels(stage) for stage in backbone.stages]
    assert channels == info.channels()[-len(channels) :]
    assert {block: x.shape[1] for block, x in tapped.items()} == outline(f"timm:{name}").channels


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_the_stages_are_timms_feature_maps(name):
    backbone = backbones.make(f"timm:{name}", weights="none").eval()
    features = timm.create_model(name, features_only=True).eval()
    state = {key.replace(".", "_"): tensor for key, tensor in backbone.state_dict().items()}
    own = {key: state[f"net_{key.replace('.', '_')}"] for key in features.state_dict()}
    features.load_state_dict(own)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    last, tapped = backbone.run(images, taps=backbone.stages)
    maps = features(images)[-len(backbone.stages) :]
    for stage, expected in zip(backbone.stages, maps, strict=True):
        assert torch.equal(tapped[stage], expected), stage
    assert torch.equal(last, maps[-1])


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_of_the_chain_gets_a_gradient(name):
    backbone = backbones.make(f"timm:{name}", weights="none")
    backbone(torch.randn(4, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_a_file_of_timms_weights_fits(tmp_path):
    net = timm.create_model("test_convnext")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    backbone = backbones.make("timm:test_convnext", weights=str(tmp_path / "w.safetensors"))
    state = net.state_dict()
    assert all(torch.equal(t, state[k[4:]]) for k, t in backbone.state_dict().items())
    assert "net.head.fc.weight" in backbone.left_out


def test_a_file_of_another_network_is_refused(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="do not fit the backbone"):
        backbones.make("timm:test_convnext", weights=str(tmp_path / "w.safetensors"))


def test_a_run_on_a_timm_net_gives_its_backbone(tmp_path):
    run = build_model("plain", num_classes=3, backbone="timm:test_convnext")
    save_file(run.state_dict(), tmp_path / "model.safetensors")
    again = backbones.make("timm:test_convnext", weights=str(tmp_path / "model.safetensors"))
    pairs = zip(again.state_dict().values(), run.backbone.state_dict().values(), strict=True)
    assert all(torch.equal(own, stored) for own, stored in pairs)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet19", "resnet18"),
        ("convnext_ato", "convnext_atto"),
        ("", "a name of timm"),
        ("resnet18.a9_in1k", "a1_in1k"),
    ],
)
def test_a_name_that_timm_does_not_have_is_refused_with_the_nearest(name, hint):
    with pytest.raises(UsageError, match=hint) as error:
        backbones.make(f"timm:{name}", weights="none")
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", "inside the network"),
        ("swin_tiny_patch4_window7_224", r"\[batch, 96, height, width\]"),
        ("hrnet_w18_small", "inside the network"),
        ("selecsls42", "one map"),
    ],
)
def test_a_network_that_is_no_chain_is_refused_with_the_reason(name, reason):
    with pytest.raises(UsageError, match=reason):
        backbones.make(f"timm:{name}", weights="none")


def test_weights_come_with_their_own_mean_and_size():
    preprocess = backbones.entry("timm:test_resnet").preprocess
    assert (preprocess.crop, preprocess.resize, preprocess.mean) == (160, 168, (0.5,) * 3)
    tagged = backbones.entry("timm:resnet18.fb_swsl_ig1b_ft_in1k").preprocess
    assert (tagged.crop, tagged.resize) == (224, 256)


def test_a_network_without_weights_says_so():
    name = next(
        n for n in timm.list_models("resnet*") if not timm.get_pretrained_cfg(n).has_weights
    )
    with pytest.raises(UsageError, match="has no weights 'imagenet'"):
        backbones.make(f"timm:{name}", weights="imagenet")


def test_a_failed_fetch_is_a_problem_of_the_machine(monkeypatch):
    def offline(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(SystemProblem, match="--weights FILE"):
        backbones.make("timm:test_resnet", weights="imagenet")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_runs_on_a_timm_net(model):
    if model in ("ca", "sa", "csca"):  # they gate residual branches that the net names
        with pytest.raises(UsageError, match="no residual branches"):
            build_model(model, num_classes=3, backbone="timm:test_resnet")
    backbone = "timm:mobilenetv2_035" if model in ("ca", "sa", "csca") else "timm:test_resnet"
    built = build_model(model, num_classes=3, backbone=backbone).eval()
    with torch.no_grad():
        outputs = built(torch.zeros(1, 3, 64, 64))
    assert all(outputs[output.name].shape == (1, 3) for output in built.outputs)


def test_an_unknown_network_exits_with_2(tmp_path, capsys):
    words = ["--backbone", "timm:resnet19", "--data", str(tmp_path), "--out", str(tmp_path / "r")]
    assert main(["train", *words]) == 2
    assert "resnet18" in capsys.readouterr().err


def test_a_network_that_timm_cannot_cut_into_features_says_so(monkeypatch):
    create = timm.create_model

    def without_features(name, *, features_only=False, **options):
        if features_only:
            raise RuntimeError("features_only not implemented for test_convnext2")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", without_features)
    with pytest.raises(UsageError, match="cannot build it with features_only"):
        backbones.make("timm:test_convnext2", weights="none")
