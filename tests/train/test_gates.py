import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from finedge.errors import UsageError
from finedge.train import backbones, models
from finedge.train.layers.gates import ChannelScores, Gated, JointGate
from finedge.train.layers.head import pooled

GATED = {"ca": {}, "sa": {}, "csca": {}, "csca sequential": {"order": "sequential"}}
SMALL = ("resnet18", "efficientnet_lite0", "mobilenetv2_035")
# Counted by hand for 200 classes on ResNet-50: the sum over the 16 units of 2 C C/16 + C/16 + C,
# and 16 x 2 x 7 x 7.
PLAIN, CHANNEL, SPATIAL = 23_917_832, 2_530_992, 1_568


@pytest.fixture(params=GATED)
def gated(request):
    return request.param


def build(choice, backbone="mobilenetv2_035", **options):
    torch.manual_seed(0)
    name, choice_options = choice.split()[0], GATED.get(choice, {})
    return models.build_model(name, num_classes=7, backbone=backbone, **choice_options, **options)


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def gates_of(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, Gated)}


@torch.no_grad()
@pytest.mark.parametrize("backbone", [*SMALL, "wrn_16_1"])
def test_a_gated_network_starts_as_exactly_the_plain_one(gated, backbone):
    body, options = backbones.make(backbone, weights="none"), GATED[gated]
    for norm in (m for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_var):
            torch.nn.init.uniform_(tensor, 0.5, 1.0)
    plain, model = (
        models.MODELS["plain"](copy.deepcopy(body), 7).eval(),
        models.MODELS[gated.split()[0]](body, 7, **options).eval(),
    )
    model.classifier.load_state_dict(plain.classifier.state_dict())
    assert torch.equal(model(images())["logits"], plain(images())["logits"])


@torch.no_grad()
def test_the_pretrained_weights_of_lite0_come_through_unharmed(gated):
    plain, model = (
        build(name, "efficientnet_lite0", weights="imagenet").eval() for name in ("plain", gated)
    )
    model.classifier.load_state_dict(plain.classifier.state_dict())
    assert torch.equal(model(images())["logits"], plain(images())["logits"])


@torch.no_grad()
def test_only_the_last_norms_change_and_they_are_doubled():
    body = backbones.make("resnet18", weights="none")
    before = copy.deepcopy(body.state_dict())
    models.MODELS["ca"](body, 7)
    after = {
        key.replace(".norm.", "."): tensor
        for key, tensor in body.state_dict().items()
        if ".gate." not in key
    }
    doubled = {f"{end}.{kind}" for end in body.residual_ends for kind in ("weight", "bias")}
    assert after.keys() == before.keys()
    assert all(
        torch.equal(after[key], tensor * (2 if key in doubled else 1))
        for key, tensor in before.items()
    )


@torch.no_grad()
def test_without_gain_the_gates_start_at_a_half():
    model = build("ca", "resnet18", gain=1.0)
    (norm, gate) = next((m.norm, m.gate) for m in gates_of(model).values())
    assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    x = torch.randn(2, norm.num_features, 5, 5)
    assert torch.equal(gate(x), x / 2)


@pytest.mark.parametrize(
    ("choice", "backbone"),
    [*(("csca", name) for name in backbones.names()), *((name, "resnet18") for name in GATED)],
)
def test_every_residual_unit_has_one_gate(choice, backbone):
    with torch.device("meta"):
        model = build(choice, backbone)
    assert list(gates_of(model)) == [f"backbone.{end}" for end in model.backbone.residual_ends]


@pytest.mark.parametrize(
    ("backbone", "units"),
    [("resnet18", 8), ("resnet50", 16), ("resnet101", 33), ("efficientnet_lite0", 9)],
)
def test_the_residual_units_are_those_of_the_network(backbone, units):
    with torch.device("meta"):
        body = backbones.make(backbone, weights="none")
    assert len(body.residual_ends) == units


@torch.no_grad()
@pytest.mark.parametrize("backbone", SMALL)
def test_a_residual_branch_ends_where_the_backbone_says(backbone):
    """Silencing the last norm of a branch makes its block hand on the skip alone."""
    body = backbones.make(backbone, weights="none").eval()
    for end in body.residual_ends:
        block, norm = body.get_submodule(end.rpartition(".")[0]), body.get_submodule(end)
        first = next(m for m in block.modules() if isinstance(m, torch.nn.Conv2d))
        x = torch.rand(1, first.in_channels, 8, 8)
        torch.nn.init.zeros_(norm.weight)
        downsample = getattr(block, "downsample", None)
        assert torch.equal(block(x), F.relu(downsample(x)) if downsample else x), end


def test_gates_are_new_parameters(gated):
    model = build(gated)
    new = {id(p) for p in model.new_parameters()}
    assert new == {
        id(p)
        for name, p in model.named_parameters()
        if ".gate." in name or name.startswith("classifier.")
    }
    assert len(list(model.new_parameters())) == len(new)


def test_the_gates_of_a_frozen_stage_stay_as_they_start(gated):
    model = build(gated, "resnet18").train()
    model.backbone.freeze(2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.loss(model(images()), torch.tensor([0, 5])).backward()
    optimizer.step()
    moved = {
        name
        for name, p in model.named_parameters()
        if ".gate." in name and not torch.equal(p, before[name])
    }
    assert moved
    assert not any(name.startswith(("backbone.layer1", "backbone.layer2")) for name in moved)


@torch.no_grad()
def test_channel_scores_have_a_bottleneck_of_a_sixteenth_at_least_four():
    assert ChannelScores(256).reduce.out_channels == 16
    scores = ChannelScores(24).double()
    assert scores.reduce.out_channels == 4
    torch.nn.init.normal_(scores.expand.weight)
    x = torch.randn(2, 24, 5, 5, dtype=torch.float64)
    hidden = F.relu(x.mean((2, 3)) @ scores.reduce.weight[..., 0, 0].T + scores.reduce.bias)
    torch.testing.assert_close(
        scores(x)[..., 0, 0], hidden @ scores.expand.weight[..., 0, 0].T + scores.expand.bias
    )


@torch.no_grad()
def test_the_joint_mask_is_the_sigmoid_of_both_scores_added():
    gate = JointGate(24).double()
    for module in (gate.scores.channel.expand, gate.scores.spatial.conv):
        torch.nn.init.normal_(module.weight)
    x = torch.randn(2, 24, 5, 6, dtype=torch.float64)
    spatial = F.conv2d(
        torch.stack([x.mean(1), x.max(1).values], 1), gate.scores.spatial.conv.weight, padding=3
    )
    mask = torch.sigmoid(gate.scores.channel(x) + spatial)
    assert mask.shape == x.shape
    torch.testing.assert_close(gate(x), x * mask)


@torch.no_grad()
@pytest.mark.parametrize("backbone", SMALL)
def test_the_masks_to_look_at_are_at_most_three_one_a_resolution(gated, backbone):
    model, shapes = build(gated, backbone).eval(), []
    masks = [view.tap for view in model.views if view.kind == "mask"]
    for tap in masks:
        model.get_submodule(tap).register_forward_hook(
            lambda _, __, output: shapes.append(output.shape)
        )
    model(images(96))
    assert len(masks) == (0 if gated == "ca" else 3)
    assert all(shape[:2] == (2, 1) for shape in shapes)
    assert len({shape[2] for shape in shapes}) == len(masks)
    assert model.views[-1].kind == "cam"


@pytest.mark.parametrize(
    ("name", "extra"), [("fcn", 0), ("ca", CHANNEL), ("sa", SPATIAL), ("csca", CHANNEL + SPATIAL)]
)
def test_resnet50_has_the_parameters_and_operations_that_were_counted(name, extra):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = models.build_model(name, num_classes=200, backbone="resnet50").eval()
        model(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in model.parameters()) == PLAIN + extra
    assert counter.get_total_flops() / 2e9 == pytest.approx(4.09, abs=0.005)  # reference: 4.09 GMAC


@torch.no_grad()
def test_the_mean_of_the_maps_of_fcn_is_its_output():
    model = build("fcn").double().eval()
    torch.nn.init.normal_(model.classifier.bias)
    x = images().double()
    maps = model.maps(model.backbone(x))
    assert maps.shape == (2, 7, 2, 2)
    torch.testing.assert_close(pooled(maps), model(x)["logits"], rtol=1e-12, atol=1e-12)


def test_a_wrong_order_and_a_backbone_without_residual_units_are_refused():
    with pytest.raises(UsageError, match="did you mean 'joint'"):
        models.build_model("csca", num_classes=7, backbone="resnet18", order="join")
    body = backbones.make("resnet18", weights="none")
    body.residual_ends = ()
    with pytest.raises(UsageError, match="residual"):
        models.MODELS["sa"](body, 7)
