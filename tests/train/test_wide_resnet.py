import pytest
import torch
import torch.nn.functional as F

from finedge.train import backbones, models

NAMES = [name for name in backbones.names() if name.startswith("wrn")]
PUBLISHED_M = 36.5  # parameters of WRN-28-10 with 10 classes, in the paper
ROUNDING = 0.05  # it gives one decimal


def published(backbone, images):
    """The forward pass of WRN's code on `backbone`'s weights: a block activates its input."""

    def activate(x, norm):
        return F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias))

    x = backbone.conv1(images)
    norms = [
        m[0] if isinstance(m, torch.nn.Sequential) else None
        for m in (backbone.norm0, backbone.norm1, backbone.norm2)
    ]
    for norm, group in zip(norms, (backbone.group1, backbone.group2, backbone.group3), strict=True):
        for index, block in enumerate(group):
            o1 = activate(x, norm if index == 0 and norm is not None else block.before[0])
            y = F.conv2d(o1, block.conv1.weight, stride=block.conv1.stride, padding=1)
            z = F.conv2d(activate(y, block.bn), block.conv2.weight, padding=1)
            widens = isinstance(block.skip, torch.nn.Conv2d)
            x = z + (F.conv2d(o1, block.skip.weight, stride=block.skip.stride) if widens else x)
    return activate(x, backbone.norm3[0])


def randomised(name):
    torch.manual_seed(0)
    backbone = backbones.make(name, weights="none").eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor, 0.1, 1.0)
    return backbone


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["wrn_16_1", "wrn_16_2"]
)  # the first group keeps the stem's channels, and does not
def test_the_chain_computes_what_the_published_code_does(name, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "wrn_16_2", backbones.entry("wrn_16_1"))
    backbone, images = randomised(name).double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(backbone(images), published(backbone, images))


def test_the_number_of_parameters_is_the_published_one():
    with torch.device("meta"):
        model = models.build_model("plain", num_classes=10, backbone="wrn_28_10")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(
        PUBLISHED_M, abs=ROUNDING
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_is_the_activated_output_of_its_group(name):
    with torch.device("meta"):
        backbone = backbones.make(name, weights="none").eval()
        _, maps = backbone.run(torch.empty(1, 3, 32, 32), taps=backbone.stages)
    assert [tuple(x.shape[2:]) for x in maps.values()] == [(32, 32), (16, 16), (8, 8)]
    assert all(
        isinstance(backbone.get_submodule(stage)[-1], torch.nn.ReLU) for stage in backbone.stages
    )


def test_the_blocks_between_the_norms_are_6_n_plus_4_layers():
    for name in NAMES:
        depth = int(name.split("_")[1])
        with torch.device("meta"):
            backbone = backbones.make(name, weights="none")
        assert 2 * len(backbone.residual_ends) + 4 == depth


def test_dropout_drops_whole_channels_in_training_only():
    with torch.device("meta"):
        rates = {
            name: {
                m.p
                for m in backbones.make(name, weights="none").modules()
                if isinstance(m, torch.nn.Dropout2d)
            }
            for name in NAMES
        }
    assert rates == {
        "wrn_16_1": {0.0},
        "wrn_28_10": {0.0},
        "wrn_40_10": {0.0},
        "wrn_40_10_dropout": {0.3},
    }


def test_images_are_prepared_for_cifar():
    how = backbones.entry("wrn_28_10").preprocess
    assert (how.resize, how.crop) == (32, 32)
    assert how.mean == pytest.approx((0.4914, 0.4824, 0.4467), abs=1e-4)
    assert how.std == pytest.approx((0.2471, 0.2435, 0.2616), abs=1e-4)
