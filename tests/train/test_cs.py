import pytest
import torch

from finedge.train import backbones, models
from finedge.train.cost import cost
from finedge.train.layers.cross_layer_attention import CrossLayerAttention
from finedge.train.layers.cross_layer_channel import CrossLayerSelf, HighLevel
from finedge.train.layers.head import LinearHead
from finedge.train.layers.pooling import average_to

# Counted by hand from the paper: parameters in millions, GMAC at 224 and 448, 200 classes, two
# decimals; wrong by at most their rounding.
COUNTED = [("resnet101", 44.65, 8.28, 33.43), ("resnet50", 25.66, 4.57, 18.58)]
ROUNDING = 0.0051


def build(backbone="resnet18", **options):
    torch.manual_seed(0)
    return models.build_model("cs", num_classes=7, backbone=backbone, **options).eval()


def images(side=64):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def open_gammas(module):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.7)
    return module


def recorded(model, *paths):
    found = {}
    for path in paths:
        model.get_submodule(path).register_forward_hook(
            lambda _, inputs, output, path=path: found.__setitem__(path, (inputs, output))
        )
    with torch.no_grad():
        model(images())
    return found


@pytest.mark.parametrize(("backbone", "parameters", "small", "large"), COUNTED)
def test_the_counts_are_those_of_the_specification(backbone, parameters, small, large):
    counts = cost("cs", backbone=backbone)
    assert counts["parameters"] / 1e6 == pytest.approx(parameters, abs=ROUNDING)
    assert [counts["gmac"][size] for size in ("224", "448")] == pytest.approx(
        [small, large], abs=ROUNDING
    )


@torch.no_grad()
def test_one_low_map_is_refined_by_the_equations_of_the_specification():
    torch.manual_seed(0)
    high, refine = HighLevel(10, width=4).eval(), open_gammas(CrossLayerSelf(6, width=4)).eval()
    low_map, high_map = torch.randn(2, 6, 7, 5), torch.randn(2, 10, 4, 3)
    low, h = refine.reduce(low_map), high.reduce(high_map)
    q, k = (
        high.channel_query(h).flatten(2),
        refine.channel_key(average_to(low, grid=(4, 3))).flatten(2),
    )
    channels = torch.softmax(torch.einsum("bcn,bdn->bcd", q, k) / 12**0.5, dim=2)
    refined_channels = low + 0.7 * torch.einsum("bcd,bdhw->bchw", channels, low)
    q, k, v = refine.spatial_query(low).flatten(2), high.key(h).flatten(2), high.value(h).flatten(2)
    space = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) / 4**0.5, dim=2)
    refined_space = low + 0.7 * torch.einsum("bqk,bck->bcq", space, v).reshape_as(low)
    expected = refine.fuse(torch.cat([refined_channels, refined_space], dim=1))
    torch.testing.assert_close(refine(low_map, high(high_map)), expected)


def test_at_the_start_both_refinements_are_the_low_map_itself_exactly():
    found = recorded(
        build(), *(f"refine.{i}.{part}" for i in (0, 1) for part in ("reduce", "fuse"))
    )
    for i in (0, 1):
        low = found[f"refine.{i}.reduce"][1]
        (fused,) = found[f"refine.{i}.fuse"][0]
        assert torch.equal(fused, torch.cat([low, low], dim=1))


def test_the_classifier_sees_the_average_of_the_last_map_first():
    model = build("mobilenetv2_035")
    last = f"backbone.{model.backbone.chain[-1]}"
    found = recorded(model, last, "classifier")
    (features,) = found["classifier"][0]
    assert isinstance(model.classifier, LinearHead)
    torch.testing.assert_close(
        features[:, : model.backbone.feature_channels], found[last][1].mean(dim=(2, 3))
    )


@torch.no_grad()
def test_what_the_high_map_hands_out_is_computed_once():
    program = torch.export.export(build(), (images(),))
    convolutions = [n for n in program.graph.nodes if n.target == torch.ops.aten.conv2d.default]
    assert len(convolutions) == 20 + 4 + 2 * 4  # ResNet-18; the high map; two low maps


@torch.no_grad()
@pytest.mark.parametrize("side", [65, 97])
def test_sides_that_the_strides_do_not_divide_work(side):
    assert build()(images(side))["logits"].isfinite().all()


@pytest.mark.parametrize("backbone", backbones.names())
def test_the_width_is_cnls(backbone):
    with torch.device("meta"):
        model = models.build_model("cs", num_classes=7, backbone=backbone)
    assert model.refine[0].reduce.out_channels == models.cnl.placement(model.backbone).width


def test_the_width_can_be_chosen():
    assert build(width=32).classifier.in_features == 512 + 2 * 32


def test_every_attention_view_shows_an_attention():
    model = build()
    taps = [view.tap for view in model.views if view.kind == "attention"]
    assert taps == ["refine.0.spatial", "refine.1.spatial"]
    assert all(isinstance(model.get_submodule(tap), CrossLayerAttention) for tap in taps)
