import copy

import pytest
import torch

from finedge.errors import UsageError
from finedge.train import backbones, models
from finedge.train.layers.head import LinearHead
from finedge.train.layers.non_local import CrossLayerNonLocal
from finedge.train.models import cnl
from finedge.train.run import rebuild

SMALL = ("resnet18", "efficientnet_lite0", "mobilenetv2_035", "wrn_16_1")
TINY = ("resnet18", "mobilenetv2_035")
# They read the most places of a backbone: these run on all, the others on one of each kind.
CROSS_LAYER = ("cnl", "cs", "clca_cga")
EXTRA = 3_166_208  # parameters of the published module on ResNet-50


def build(name, **options):
    torch.manual_seed(0)
    return models.build_model(name, **{"num_classes": 7, "backbone": "mobilenetv2_035", **options})


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def scores(model):
    """The main output for two images."""
    return model(images())[next(o.name for o in model.outputs if o.role == "main")]


def perturb(model):
    """Move every parameter off its start (gamma = 0 would stop gradients)."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=models.names())
def name(request):
    return request.param


def test_every_parameter_gets_a_gradient(name):  # on Lite0: tests/flow/test_every_model.py
    model = perturb(build(name, backbone="resnet18"))
    model.loss(model(images(96)), torch.tensor([0, 5]), label_smoothing=0.1).backward()
    without = [
        key
        for key, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert without == []


def test_autocast_trains(name):
    model = perturb(build(name))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(model(images()), torch.tensor([0, 5]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        (name, backbone)
        for name in models.names()
        for backbone in backbones.names()
        if name in CROSS_LAYER or backbone in SMALL
    ],
)
def test_every_model_runs_on_every_kind_of_backbone(name, backbone):
    with torch.device("meta"):
        model = build(name, backbone=backbone).eval()
        outputs = model(torch.empty(2, 3, 64, 64))
    assert {key: tuple(x.shape) for key, x in outputs.items()} == {
        output.name: (2, 7) for output in model.outputs
    }
    assert [output.role for output in model.outputs].count("main") == 1


@torch.no_grad()
@pytest.mark.parametrize("backbone", TINY)
def test_each_tap_runs_once_in_order_and_gives_one_feature_map(name, backbone):
    model, seen = build(name, backbone=backbone).eval(), []
    for tap in model.taps:
        model.get_submodule(tap).register_forward_hook(
            lambda _, __, output, tap=tap: seen.append((tap, output.ndim))
        )
    model(images())
    assert seen == [(tap, 4) for tap in model.taps]


@torch.no_grad()
def test_name_backbone_classes_and_options_make_the_model_again(name):
    model = perturb(build(name, backbone="mobilenetv2_035")).eval()
    again = models.build_model(
        name, num_classes=7, backbone="mobilenetv2_035", **model.options
    ).eval()
    again.load_state_dict(model.state_dict())
    assert again.options == model.options
    assert torch.equal(scores(again), scores(model))


@torch.no_grad()
def test_a_copy_is_independent(name):
    model = build(name).eval()
    before, twin = scores(model), copy.deepcopy(model)
    perturb(twin)
    assert torch.equal(scores(model), before)
    assert not torch.equal(scores(twin), before)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("backbone", SMALL)
def test_cnl_starts_as_exactly_the_plain_network(backbone, joint):
    model = build("cnl", backbone=backbone, joint=joint).eval()
    plain = build("plain", backbone=backbone).eval()
    plain.load_state_dict(
        {key: x for key, x in model.state_dict().items() if not key.startswith("cross_layer")}
    )
    assert torch.equal(model(images())["logits"], plain(images())["logits"])


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_cnl_adds_the_published_number_of_parameters(backbone):
    with torch.device("meta"):
        plain, model = (
            sum(p.numel() for p in build(n, num_classes=200, backbone=backbone).parameters())
            for n in ("plain", "cnl")
        )
    assert model - plain == EXTRA


@pytest.mark.parametrize("backbone", backbones.names())
def test_cnl_asks_from_behind_its_responses(backbone):
    with torch.device("meta"):
        body = backbones.make(backbone, weights="none")
    place = cnl.placement(body)
    order = [body.chain.index(block) for block in (*place.responses, place.query)]
    assert order == sorted(set(order))
    assert order[-1] < len(body.chain) - 1  # something of the backbone follows, as in the paper


def test_the_attention_starts_as_the_paper_says():
    module = build("cnl", backbone="resnet18").cross_layer
    weights = torch.cat(
        [m.weight.flatten() for m in (module.theta, *module.phi, *module.g, module.z)]
    )
    assert abs(weights.std() - 0.01) < 2e-4
    assert abs(weights.mean()) < 2e-4
    assert not any(bn.weight.any() or bn.bias.any() for bn in module.bn)


def test_a_fan_in_head_starts_as_in_attend_and_rectifys_code():
    head = LinearHead(640, 10, dropout=0.0, head_init="fan_in")
    assert head.weight.std().item() == pytest.approx((2 / 640) ** 0.5, rel=0.05)


@torch.no_grad()
def test_the_published_layout_is_the_missing_transpose_of_the_authors_code():
    query, response = torch.randn(2, 8, 3, 2), torch.randn(2, 6, 5, 4)
    torch.manual_seed(0)
    module = CrossLayerNonLocal(8, responses=[6], width=4, layout="published").eval()
    module.bn[0].weight.fill_(1.0)
    att = torch.softmax(
        module.theta(query).flatten(2).transpose(1, 2) @ module.phi[0](response).flatten(2) / 2,
        dim=2,
    )
    scrambled = torch.bmm(att, module.g[0](response).flatten(2).transpose(1, 2)).view(2, 4, 3, 2)
    torch.testing.assert_close(module(query, [response]), query + module.bn[0](module.z(scrambled)))


def test_cnl_on_lite0_asks_before_the_last_block_that_mixes_positions():
    with torch.device("meta"):
        model, former = (
            build("cnl", backbone="efficientnet_lite0", place=p) for p in ("spatial", "stage")
        )
    assert (model.place.query, former.place.query) == ("blocks.5.3", "blocks.6.0")
    assert [n.num_features for n in model.cross_layer.norms] == [40, 112]
    assert former.cross_layer.norms is None
    assert build("cnl", backbone="resnet18").cross_layer.norms is None


@pytest.mark.parametrize(
    ("name", "option", "former"),
    [("cnl", "place", "stage"), ("attend_rectify", "last", True)],
)
def test_a_run_older_than_an_option_is_built_as_it_was(tmp_path, name, option, former):
    with torch.device("meta"):
        options = build(name).options
        old = {k: v for k, v in options.items() if k != option}
        record = {"name": name, "backbone": "mobilenetv2_035", "options": old}
        labels = {"labels": list("abcdefg")}
        model = rebuild({"model": record, "spec": labels}, path=tmp_path)
        record["options"] = options
        again = rebuild({"model": record, "spec": labels}, path=tmp_path)
    assert model.options == {**options, option: former} != options
    assert again.options == options


@pytest.mark.parametrize(("head_init", "std"), [("small", 0.01), ("kaiming", 0.1)])
def test_the_new_linear_layer_starts_where_asked(name, head_init, std):
    layers = [
        m
        for m in build(name, num_classes=200, head_init=head_init).modules()
        if isinstance(m, LinearHead)
    ]
    assert [layer.weight.std().item() for layer in layers] == pytest.approx(
        [std] * len(layers), rel=0.01
    )
    assert layers
    assert not any(layer.bias.any() for layer in layers)


def test_the_loss_is_smoothed_cross_entropy_of_the_main_output():
    model, logits, target = build("plain"), torch.randn(4, 7), torch.tensor([0, 1, 2, 6])
    shares = torch.full((4, 7), 0.1 / 7)
    shares[range(4), target] += 0.9
    expected = -(shares * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(
        model.loss({"logits": logits}, target, label_smoothing=0.1), expected
    )
    torch.testing.assert_close(model.loss({"logits": logits}, shares), expected)


def test_dropout_acts_in_training_only():
    model = build("plain", dropout=0.5)
    model.backbone.eval()
    assert not torch.equal(model(images())["logits"], model(images())["logits"])
    model.eval()
    assert torch.equal(model(images())["logits"], model(images())["logits"])


def test_unknown_names_and_options_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'plain'"):
        build("plane")
    with pytest.raises(UsageError, match="did you mean 'dropout'"):
        build("cnl", drop_out=0.1)
    with pytest.raises(UsageError, match="did you mean 'kaiming'"):
        build("cnl", head_init="kaimin")
    with pytest.raises(UsageError, match="1 classes"):
        build("plain", num_classes=1)


def test_a_name_cannot_be_registered_twice():
    with pytest.raises(UsageError, match="'plain' is taken"):
        models.register("plain", models.MODELS["cnl"])
    assert models.MODELS["plain"] is not models.MODELS["cnl"]


def test_a_model_says_where_it_comes_from(name):
    about = models.MODELS[name].about
    assert about.paper
    assert about.certain
    assert about.reconstructed
