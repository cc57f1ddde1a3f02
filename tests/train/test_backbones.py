import pytest
import timm
import torch
import torchvision

from finedge.errors import UsageError
from finedge.train import backbones

SMALL = ("resnet18", "efficientnet_lite0", "mobilenetv2_035")


@pytest.fixture(params=SMALL)
def backbone(request):
    return backbones.make(request.param, weights="none").eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def original(name):
    whole = name.removesuffix("_s16")
    return (
        torchvision.models.get_model(name, weights=None)
        if name.startswith(("resnet", "resnext", "wide_resnet"))
        else timm.create_model(whole.replace("efficientnet", "tf_efficientnet"))
    )


@pytest.mark.parametrize(
    "name", [name for name in backbones.names() if not name.startswith("wrn")]
)  # no library has these: test_wide_resnet.py
def test_the_chain_is_the_whole_network_without_its_classifier(name):
    with torch.device("meta"):
        net, backbone = original(name), backbones.make(name, weights="none")
    kept = {
        key: tensor.shape
        for key, tensor in net.state_dict().items()
        if key.split(".")[0] not in ("fc", "classifier")
    }
    if name.endswith("_s16"):  # cut off behind stride 16
        kept = {
            key: shape
            for key, shape in kept.items()
            if not key.startswith(("blocks.5", "blocks.6", "conv_head", "bn2"))
        }
    assert {key: tensor.shape for key, tensor in backbone.state_dict().items()} == kept


@torch.no_grad()
def test_the_chain_computes_what_the_original_does(backbone, images):
    net = original(backbone.name).eval()
    backbone.load_state_dict(
        {
            key: tensor
            for key, tensor in net.state_dict().items()
            if key.split(".")[0] not in ("fc", "classifier")
        }
    )
    head = net.fc if hasattr(net, "fc") else net.classifier
    torch.testing.assert_close(head(backbone(images).mean(dim=(2, 3))), net(images))


@pytest.mark.parametrize("name", backbones.names())
def test_every_block_has_the_channels_it_says(name):
    with torch.device("meta"):
        backbone = backbones.make(name, weights="none").eval()
        last, tapped = backbone.run(torch.empty(1, 3, 224, 224), taps=backbone.chain)
    assert {block: backbone.channels(block) for block in backbone.chain} == {
        block: x.shape[1] for block, x in tapped.items()
    }
    assert last.shape[1] == backbone.feature_channels


@pytest.mark.parametrize("name", backbones.names())
def test_each_stage_doubles_the_stride_up_to_that_of_the_backbone(
    name,
):
    with torch.device("meta"):
        backbone = backbones.make(name, weights="none").eval()
        _, tapped = backbone.run(torch.empty(1, 3, 224, 224), taps=backbone.stages)
    strides = [224 // tapped[stage].shape[2] for stage in backbone.stages]
    last = 2 if name.startswith("wrn") else 4 if name.endswith("_s16") else 5
    assert strides == [2**n for n in range(last + 1 - len(strides), last + 1)]


@torch.no_grad()
def test_running_in_two_parts_is_running_at_once(backbone, images):
    for block in backbone.chain:
        part, _ = backbone.run(images, until=block)
        assert torch.equal(backbone.run(part, after=block)[0], backbone(images)), block


@torch.no_grad()
def test_a_tap_is_the_output_of_its_block_and_later_blocks_leave_it_alone(backbone, images):
    _, tapped = backbone.run(images, taps=backbone.stages)
    for stage in backbone.stages:
        assert torch.equal(tapped[stage], backbone.run(images, until=stage)[0])


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_freezing_stops_gradients_and_statistics_of_the_first_stages_only(backbone, images, stages):
    backbone.freeze(stages)
    backbone.train()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    backbone(images).square().mean().backward()
    end = backbone.chain.index(backbone.stages[stages - 1]) + 1 if stages else 0
    for index, block in enumerate(backbone.chain):
        part, frozen = backbone.get_submodule(block), index < end
        assert all((p.grad is None) == frozen for p in part.parameters()), block
        changed = [
            not torch.equal(tensor, before[f"{block}.{key}"])
            for key, tensor in part.state_dict().items()
            if "running" in key
        ]
        assert all(change is not frozen for change in changed), block


def test_freezing_again_sets_the_new_number_exactly(backbone):
    backbone.freeze(2)
    backbone.freeze(0)
    backbone.train()
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.modules())


@pytest.mark.parametrize("stages", [-1, 6])
def test_a_number_of_stages_that_is_not_there_is_refused(backbone, stages):
    with pytest.raises(UsageError, match=f"freeze {stages}"):
        backbone.freeze(stages)


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        backbones.make("resnet5", weights="none")


def test_an_unknown_block_names_the_nearest(images):
    with pytest.raises(UsageError, match=r"unknown block 'layer4.7'"):
        backbones.make("resnet18", weights="none").run(images, until="layer4.7")
