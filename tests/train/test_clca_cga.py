import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from finedge.errors import UsageError
from finedge.train import models
from finedge.train.cost import cost
from finedge.train.layers.collaborative import ChannelGroupAttention, CoAttention, unit_length
from finedge.train.layers.cross_layer_attention import CrossLayerAttention
from finedge.train.layers.pooling import average_to, mean_of_largest

# Counted by hand from the paper: parameters in millions, GMAC at 224 and 448, 200 classes, two
# decimals; wrong by at most their rounding.
COUNTED = [("full", 43.08, 9.95, 47.23), ("edge", 25.63, 4.26, 17.57)]
ROUNDING = 0.0051
# Channels P of a branch, and positions of the three branches at 224.
BRANCHES = {"full": (1024, (784, 196, 49)), "edge": (256, (196, 196, 49))}
FLOAT16_MAX = 65504


def build(backbone="resnet18", **options):
    torch.manual_seed(0)
    return models.build_model("clca_cga", num_classes=7, backbone=backbone, **options).eval()


def images(side=64):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def maps():
    torch.manual_seed(1)
    return [torch.randn(2, 6, *grid).relu() for grid in ((5, 4), (3, 3), (2, 1))]


def similarity_gmac(width, *, enlarged):
    """GMAC of one matrix of cosines for each pair; grids are `enlarged` times those at 224."""
    channels, (first, second, last) = BRANCHES[width]
    return channels * (first * second + first * last + second * last) * enlarged**2 / 1e9


@pytest.mark.parametrize(("width", "parameters", "small", "large"), COUNTED)
def test_the_counts_are_the_specifications_and_the_cosines_once_more(
    width, parameters, small, large
):
    # The specification counts the cosines of a pair once; the two ops compute them twice.
    counts = cost("clca_cga", backbone="resnet50", width=width)
    expected = [
        small + similarity_gmac(width, enlarged=1),
        large + similarity_gmac(width, enlarged=4),
    ]
    assert counts["parameters"] / 1e6 == pytest.approx(parameters, abs=ROUNDING)
    assert [counts["gmac"][size] for size in ("224", "448")] == pytest.approx(
        expected, abs=ROUNDING
    )


@torch.no_grad()
def test_both_directions_of_a_pair_read_one_matrix_of_cosines():
    first, second, _ = maps()
    exchange = CoAttention(2, scale=3.0)
    torch.nn.init.constant_(exchange.gamma[0], 0.5)
    torch.nn.init.constant_(exchange.gamma[1], 0.25)
    x, y = first.flatten(2), second.flatten(2)
    cosine = F.cosine_similarity(x[:, :, :, None], y[:, :, None, :], dim=1)
    expected_first = x + 0.5 * y @ torch.softmax(3 * cosine, dim=2).transpose(1, 2)
    expected_second = y + 0.25 * x @ torch.softmax(3 * cosine, dim=1)
    found = exchange([first, second])
    torch.testing.assert_close(found[0].flatten(2), expected_first)
    torch.testing.assert_close(found[1].flatten(2), expected_second)


@torch.no_grad()
def test_each_of_three_maps_adds_both_partners_as_they_were():
    exchange, given = CoAttention(3), maps()
    for gamma in exchange.gamma:
        torch.nn.init.constant_(gamma, 0.5)
    partners = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
    attend, unit = CrossLayerAttention(scale=1.0), [unit_length(x) for x in given]
    for i, found in enumerate(exchange(given)):
        torch.testing.assert_close(
            found, given[i] + sum(0.5 * attend(unit[i], unit[j], given[j]) for j in partners[i])
        )


@torch.no_grad()
def test_both_attentions_start_as_exactly_the_identity():
    given = maps()
    assert all(torch.equal(x, y) for x, y in zip(CoAttention(3)(given), given, strict=True))
    assert torch.equal(ChannelGroupAttention(6)(given[0]), given[0])


@pytest.mark.parametrize(
    ("channels", "groups"), [(2048, 16), (112, 16), (24, 12), (30, 15), (17, 1)]
)
def test_the_groups_are_the_largest_divisor_up_to_sixteen(channels, groups):
    assert ChannelGroupAttention(channels).attend.groups == groups


@torch.no_grad()
def test_channel_group_attention_is_self_attention_in_each_group():
    module, x = ChannelGroupAttention(34), torch.randn(2, 34, 3, 2)
    torch.nn.init.constant_(module.gamma, 0.5)
    assert module.attend.groups == 2
    flat = x.reshape(2, 2, 17, 6)
    expected = flat + 0.5 * torch.softmax(flat @ flat.transpose(2, 3) / 6**0.5, dim=3) @ flat
    torch.testing.assert_close(module(x), expected.reshape_as(x))


def test_unit_length_divides_by_the_l2_norm_and_keeps_empty_positions():
    x = maps()[0]
    x[:, :, 0, 0] = 0
    torch.testing.assert_close(unit_length(x), F.normalize(x, dim=1))
    assert not unit_length(x)[:, :, 0, 0].any()


class Largest(TorchDispatchMode):
    """The largest number of any intermediate result."""

    value = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.value = max(self.value, result.abs().max().item())
        return result


@pytest.mark.parametrize("size", [1e-3, 1.0, 6e4])
def test_no_step_of_unit_length_leaves_the_range_of_float16(size):
    x = size * (1 + torch.rand(1, 1024, 2, 2)) / 2
    with Largest() as largest:
        unit = unit_length(x)
    assert largest.value <= FLOAT16_MAX
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(1, 2, 2))


def test_the_gradient_of_unit_length_is_the_numerical_one():
    x = (0.1 + torch.rand(1, 5, 2, 2, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(unit_length, (x,))


@torch.no_grad()
def test_the_prediction_is_the_sum_of_the_four_heads():
    outputs = build()(images())
    assert (
        [o.name for o in build().outputs]
        == list(outputs)
        == ["logits", "local_0", "local_1", "local_2", "local_3"]
    )
    torch.testing.assert_close(outputs["logits"], sum(outputs[f"local_{i}"] for i in range(4)))


def test_the_loss_weighs_the_heads_two_two_two_one():
    model, target = build(), torch.tensor([0, 1, 2, 6])
    outputs = {f"local_{i}": torch.randn(4, 7) for i in range(4)}
    shares = torch.full((4, 7), 0.1 / 7)
    shares[range(4), target] += 0.9
    terms = [-(shares * x.log_softmax(1)).sum(1).mean() for x in outputs.values()]
    expected = 2 * terms[0] + 2 * terms[1] + 2 * terms[2] + terms[3]
    torch.testing.assert_close(model.loss(outputs, target, label_smoothing=0.1), expected)
    torch.testing.assert_close(model.loss(outputs, shares), expected)
    mean = build(loss_scale="mean")
    torch.testing.assert_close(mean.loss(outputs, shares), expected / 7)


@torch.no_grad()
def test_a_learnt_scale_starts_as_the_fixed_one_and_gets_a_gradient():
    maps = [torch.rand(2, 8, side, side) for side in (6, 4, 3)]
    fixed, learnt = CoAttention(3, scale=16.0), CoAttention(3, scale=16.0, learn_scale=True)
    for gamma in (*fixed.gamma, *learnt.gamma):
        gamma.fill_(0.5)
    torch.testing.assert_close(learnt(maps), fixed(maps))
    with torch.enable_grad():
        sum(x.square().sum() for x in learnt(maps)).backward()
    assert learnt.scale.grad.abs() > 0


@torch.no_grad()
def test_the_default_scale_attends_where_a_scale_of_one_is_flat():
    generator = torch.Generator().manual_seed(0)
    q, k = (unit_length(torch.rand(1, 64, 6, 6, generator=generator) ** 4) for _ in range(2))
    cosines = q.flatten(2).transpose(1, 2) @ k.flatten(2)

    def perplexity(scale):
        p = torch.softmax(scale * cosines, dim=2)
        return (-(p * p.log()).sum(2)).exp().mean().item() / p.shape[2]

    assert build().options["scale"] == 32.0
    assert perplexity(1.0) > 0.99
    assert perplexity(32.0) < 0.8


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{"width": "full"}, {"pool": "max"}, {"scale": 10.0}, {"learn_scale": True}]
)
@pytest.mark.parametrize("side", [64, 97])
def test_the_options_run_on_even_and_odd_sides(side, options):
    assert all(
        x.isfinite().all() for x in build("mobilenetv2_035", **options)(images(side)).values()
    )


def test_the_edge_width_averages_the_first_branch_to_the_second_grid():
    model, shapes = build(), []
    for branch in model.branch:
        branch.register_forward_hook(
            lambda _, inputs, output: shapes.append((inputs[0].shape[2:], output.shape[1]))
        )
    with torch.no_grad():
        model(images(96))
    assert shapes == [((6, 6), 256), ((6, 6), 256), ((3, 3), 256)]


def test_unknown_options_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'edge'"):
        build(width="edgy")
    with pytest.raises(UsageError, match="did you mean 'top5'"):
        build(pool="top4")


def test_every_direction_has_a_view_of_an_attention():
    model = build()
    assert [view.label for view in model.views] == [
        f"{a} looks at {b}"
        for a, b in (("layer2.1", "layer3.1"), ("layer2.1", "layer4.1"), ("layer3.1", "layer2.1"))
    ] + [
        f"{a} looks at {b}"
        for a, b in (("layer3.1", "layer4.1"), ("layer4.1", "layer2.1"), ("layer4.1", "layer3.1"))
    ]
    assert all(
        isinstance(model.get_submodule(view.tap), CrossLayerAttention) for view in model.views
    )


def test_the_mean_of_the_largest_takes_all_where_there_are_fewer():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert mean_of_largest(x, count=5).item() == 3.0
    assert mean_of_largest(x[:, :, :1], count=5).item() == 1.0


@pytest.mark.parametrize(("side", "cells"), [(8, 4), (8, 2), (7, 4), (13, 4), (9, 3), (5, 5)])
def test_averaging_covers_the_map_in_equal_cells_that_may_stick_out(side, cells):
    x, cell = torch.randn(2, 3, side, side), -(-side // cells)
    found = average_to(x, grid=(cells, cells))
    expected = [
        [x[:, :, i : i + cell, j : j + cell].mean(dim=(2, 3)) for j in range(0, side, cell)]
        for i in range(0, side, cell)
    ]
    torch.testing.assert_close(
        found, torch.stack([torch.stack(row, dim=-1) for row in expected], dim=2)
    )
