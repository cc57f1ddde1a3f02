import numpy as np
import pytest
import torch
import torch.nn.functional as F

from finedge.errors import UsageError
from finedge.runtime.classifier import probabilities
from finedge.train import models
from finedge.train.cost import cost
from finedge.train.layers.attention_pooling import AttentionPooling, overlap
from finedge.train.models.attend_rectify import normalised, rectified

LABELS, SMOOTHING = 7, 0.1
ROUNDING = {"parameters_m": 0.005, "gmac": 0.005}  # the hand count has two decimals


def build(**options):
    torch.manual_seed(0)
    return models.build_model(
        "attend_rectify", **{"num_classes": LABELS, "backbone": "wrn_16_1", **options}
    )


def images(count=2):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def kernels(module):
    """The published convolutions: W_H [K, C, s, s], W_O [K L, C, s, s], W_g [K, C, s, s]."""
    channels, heads, taps = module.gate.shape
    side = round(taps**0.5)
    classes = (
        module.classes.weight.view(-1, channels, heads, side, side)
        .flip(3, 4)
        .permute(2, 0, 1, 3, 4)
    )
    gate = module.gate.view(channels, heads, side, side).flip(2, 3).transpose(0, 1)
    return module.masks.weight, classes.flatten(0, 1), gate


def published(module, z):
    """The module as in the authors' code: class maps, then weighted sums over the positions."""
    w_h, w_o, w_g = kernels(module)
    heads, pad = len(w_h), w_h.shape[2] // 2
    masks = F.conv2d(z, w_h, padding=pad).flatten(2).softmax(2)
    hypotheses = (
        F.conv2d(z, w_o, padding=pad).flatten(2).unflatten(1, (heads, -1)) * masks[:, :, None]
    ).sum(3)
    gates = torch.tanh((F.conv2d(z, w_g, padding=pad).flatten(2) * masks).sum(2)).softmax(1)
    return (hypotheses * gates[:, :, None]).sum(1)


@pytest.mark.parametrize("grid", [(7, 7), (6, 9), (1, 1), (2, 5)])
@pytest.mark.parametrize(("heads", "kernel_size"), [(4, 3), (1, 3), (3, 1)])
def test_pooling_first_is_the_published_module_and_learns_the_same(grid, heads, kernel_size):
    torch.manual_seed(0)
    module = AttentionPooling(6, 5, heads=heads, kernel_size=kernel_size).double()
    z = torch.randn(2, 6, *grid, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 5, dtype=torch.float64)
    results = [module(z)[0], published(module, z)]
    torch.testing.assert_close(*results)
    inputs = [z, *module.parameters()]
    found, expected = (torch.autograd.grad((weights * logits).sum(), inputs) for logits in results)
    torch.testing.assert_close(found, expected)


def test_the_three_convolutions_start_kaiming_normal():
    torch.manual_seed(0)
    module = AttentionPooling(64, 50, heads=4, kernel_size=3)
    for weight in kernels(module):
        assert weight.std().item() == pytest.approx(
            (2 / (64 * 9)) ** 0.5, rel=0.05
        )  # the smallest has 2304 entries


def test_a_mask_is_a_distribution_over_positions_not_over_channels():
    module = AttentionPooling(6, 5, heads=4, kernel_size=3)
    masks = module.masks(torch.randn(2, 6, 5, 7))
    assert masks.shape == (2, 4, 5, 7)
    assert (masks >= 0).all()
    torch.testing.assert_close(masks.sum(dim=(2, 3)), torch.ones(2, 4))
    assert not torch.allclose(masks.sum(dim=1), torch.ones(2, 5, 7), atol=0.1)


def test_masks_look_where_the_map_says():
    module = AttentionPooling(2, 5, heads=1, kernel_size=1)
    torch.nn.init.constant_(module.masks.weight, 10)
    z = torch.zeros(1, 2, 4, 6)
    z[0, :, 2, 3] = 1
    logits, masks = module(z)
    assert masks[0, 0].argmax() == 2 * 6 + 3
    torch.testing.assert_close(
        logits, module.classes.weight.sum(1)[None], atol=1e-4, rtol=0
    )  # the other 23 positions share exp(-20)


def test_overlap_is_zero_for_separate_masks_and_largest_for_equal_ones():
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, 0, 0] = masks[0, 1, 3, 3] = 1
    assert overlap(masks) == 0
    masks[0, 1] = masks[0, 0]
    assert overlap(masks).item() == pytest.approx(
        2 * (0.25 * 0.25) ** 2 / 4
    )  # pooled 2x2; two of four entries of the Gram matrix
    assert overlap(torch.ones(1, 2, 1, 1)).item() == pytest.approx(0.5)


def test_the_rectified_prediction_is_the_gated_sum_of_log_probabilities():
    logits, gates = (
        [torch.randn(3, 5) for _ in range(2)],
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]]),
    )
    a, b = (x.log_softmax(1) for x in logits)
    torch.testing.assert_close(
        rectified(logits, gates), torch.stack([a[0], b[1], 0.25 * a[2] + 0.75 * b[2]])
    )


@pytest.mark.parametrize("how", ["softmax", "sigmoid"])
def test_gates_are_positive_and_sum_to_one(how):
    gates = normalised(torch.randn(3, 4).tanh(), how)
    assert (gates > 0).all()
    torch.testing.assert_close(
        gates.sum(1), torch.ones(3), atol=2e-6, rtol=0
    )  # the published 1e-6 beside the sigmoids' sum


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"gate": "sigmoid"}, {"modules": 1, "heads": 2, "kernel_size": 1}]
)
def test_the_main_output_is_rectified_and_the_local_ones_are_the_modules(options):
    model = build(**options).eval()
    found = {}
    for index, module in enumerate(model.attention):
        module.register_forward_hook(
            lambda _m, _i, out, index=index: found.__setitem__(f"local_{index}", out[0])
        )
    outputs = model(images())
    assert list(outputs) == [output.name for output in model.outputs] == ["log_prob", *found]
    assert all(outputs[name] is logits for name, logits in found.items())
    assert (
        outputs["log_prob"].exp().sum(1) <= 1 + 1e-5
    ).all()  # a weighted geometric mean of distributions sums to at most 1
    assert probabilities(outputs["log_prob"].numpy()).sum(1) == pytest.approx(np.ones(2))


@torch.no_grad()
def test_modules_sit_behind_the_last_stages_shallow_to_deep():
    assert build(modules=2).places == ("norm2", "norm3")
    assert build(backbone="resnet18").places == ("layer1.1", "layer2.1", "layer3.1")
    assert build(backbone="resnet18", last=True).places == ("layer2.1", "layer3.1", "layer4.1")
    assert [view.label for view in build(backbone="resnet18").views] == [
        "looks at layer1.1",
        "looks at layer2.1",
        "looks at layer3.1",
    ]


def test_half_of_the_prediction_is_the_network_heads():
    model = build(head="half", gate="sigmoid").eval()
    with torch.no_grad():
        outputs = model(images())
        last, _ = model.backbone.run(images())
        features = last.mean(dim=(2, 3))
        gates = torch.sigmoid(model.output_gate(features))
        gates = gates / (gates.sum(dim=1, keepdim=True) + 1e-6)
        local = [torch.log_softmax(outputs[f"local_{i}"], dim=1) for i in range(3)]
        gated = sum(g[:, None] * x for g, x in zip(gates.T, local, strict=True))
        network = torch.log_softmax(model.classifier(features), dim=1)
    torch.testing.assert_close(outputs["log_prob"], (gated + network) / 2)


@torch.no_grad()
@pytest.mark.parametrize(
    "backbone", ["wrn_16_1", "resnet18", "mobilenetv2_035", "efficientnet_lite0_s16"]
)
def test_modules_read_non_negative_maps_and_masks_start_spread_out(backbone):
    model, held = build(backbone=backbone), []
    for before, module in zip(model.before, model.attention, strict=True):
        before.register_forward_hook(lambda _m, _i, z: held.append(z.min() >= 0))
        module.masks.register_forward_hook(
            lambda _m, _i, masks: held.append(
                masks.amax(dim=(2, 3)).mean() < 0.5 or masks[0, 0].numel() < 10
            )
        )
    model(torch.randn(8, 3, 96, 96))
    assert all(held)


@torch.no_grad()
def test_the_views_are_the_masks():
    model, seen = build().eval(), []
    for view in model.views:
        model.get_submodule(view.tap).register_forward_hook(
            lambda _m, _i, masks: seen.append(masks)
        )
    model(images())
    assert [tuple(x.shape) for x in seen] == [(2, 4, 32, 32), (2, 4, 16, 16), (2, 4, 8, 8)]
    assert all((x >= 0).all() for x in seen)


def test_the_loss_is_the_rectified_likelihood_plus_the_regulariser():
    model, target = build(), torch.tensor([0, 5])
    outputs = model(images())
    likelihood = F.nll_loss(outputs["log_prob"], target)
    torch.testing.assert_close(model.loss(outputs, target), likelihood + 0.001 * outputs["overlap"])
    assert outputs["overlap"] > 0
    assert "overlap" not in model.eval()(images())
    assert "overlap" not in build(regulariser=0.0)(images())


def head_gradient(index, *, local_loss, gates):
    """The gradient of a local head's classes where all weight is on the gate `gates`."""
    model, target = build(local_loss=local_loss, regulariser=0.0), torch.tensor([0, 5])
    outputs = model(images())
    logits = [outputs[f"local_{i}"] for i in range(3)]
    outputs["log_prob"] = rectified([*logits, torch.zeros(2, LABELS)], gates)
    model.loss(outputs, target).backward()
    return model.attention[index].classes.weight.grad


@pytest.mark.parametrize("index", range(3))
def test_local_loss_teaches_a_head_that_the_gates_do_not_trust(index):
    network_only = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(2, 4)
    assert not head_gradient(index, local_loss=0.0, gates=network_only).any()
    assert head_gradient(index, local_loss=1.0, gates=network_only).any()


def test_local_loss_adds_the_cross_entropy_of_each_head_in_training_only():
    model, target = build(local_loss=0.5), torch.tensor([0, 5])
    outputs = model(images())
    own = sum(F.cross_entropy(outputs[f"local_{i}"], target) for i in range(3))
    without = F.nll_loss(outputs["log_prob"], target) + 0.001 * outputs["overlap"]
    torch.testing.assert_close(model.loss(outputs, target), without + 0.5 * own)
    outputs = model.eval()(images())
    likelihood = F.nll_loss(outputs["log_prob"], target)
    torch.testing.assert_close(model.loss(outputs, target), likelihood)


def test_smoothed_labels_and_shares_are_the_same():
    model, log_p, target = (
        build(),
        torch.randn(4, LABELS).log_softmax(1) - 1,
        torch.tensor([0, 1, 2, 6]),
    )
    shares = torch.full((4, LABELS), SMOOTHING / LABELS)
    shares[range(4), target] += 1 - SMOOTHING
    expected = -(shares * log_p).sum(1).mean()
    torch.testing.assert_close(
        model.loss({"log_prob": log_p}, target, label_smoothing=SMOOTHING), expected
    )
    torch.testing.assert_close(model.loss({"log_prob": log_p}, shares), expected)


@pytest.mark.parametrize(
    ("options", "parameters_m", "gmac"),
    [
        ({"last": True}, 49.99, {"224": 4.16, "448": 16.58}),
        ({"last": True, "kernel_size": 1}, 26.82, {"224": 4.10, "448": 16.37}),
    ],
)
def test_the_cost_on_resnet50_is_that_of_the_specification(options, parameters_m, gmac):
    counts = cost("attend_rectify", backbone="resnet50", **options)
    assert counts["parameters"] / 1e6 == pytest.approx(parameters_m, abs=ROUNDING["parameters_m"])
    assert counts["gmac"] == pytest.approx(gmac, abs=ROUNDING["gmac"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": 4}, "4 modules"),
        ({"modules": 0}, "0 modules"),
        ({"heads": 0}, "0 heads"),
        ({"kernel_size": 5}, "kernel_size 5"),
        ({"gate": "no"}, "no"),
        ({"head": "no"}, "unknown head 'no'"),
        ({"local_loss": -1.0}, "local_loss -1"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        build(**options)
