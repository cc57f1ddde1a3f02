import pytest
import torch

from finedge.train.models import build_model
from finedge.train.optimizer import build_optimizer, lr_at, set_lr
from finedge.train.recipe import Recipe


@pytest.fixture
def model():
    return build_model("cnl", num_classes=3, backbone="mobilenetv2_035")


def test_the_backbone_learns_at_a_tenth_and_the_rest_at_the_rate(model):
    optimizer = build_optimizer(model, Recipe(lr=0.5), backbone_lr=0.1)
    set_lr(optimizer, 0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(
            0.02 if name.startswith("backbone.") else 0.2
        ), name


def test_what_a_model_calls_new_learns_at_the_full_rate_wherever_it_lies(model, monkeypatch):
    new = model.backbone.get_parameter("conv_stem.weight")
    monkeypatch.setattr(model, "new_parameters", lambda: iter([new]))
    factors = {
        id(p): group["factor"]
        for group in build_optimizer(model, Recipe(), backbone_lr=0.1).param_groups
        for p in group["params"]
    }
    assert factors.pop(id(new)) == 1.0
    assert set(factors.values()) == {0.1}


@pytest.mark.parametrize("decay_norm", [True, False])
def test_norms_and_biases_are_decayed_only_if_the_recipe_says_so(model, decay_norm):
    optimizer = build_optimizer(
        model, Recipe(decay_norm=decay_norm, weight_decay=0.3), backbone_lr=0.1
    )
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if decay_norm or parameter.ndim > 1 else 0.0)


def test_a_frozen_stage_is_not_stepped(model):
    model.backbone.freeze(2)
    stepped = {
        id(p)
        for group in build_optimizer(model, Recipe(), backbone_lr=0.1).param_groups
        for p in group["params"]
    }
    assert stepped == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(stepped) < len(list(model.parameters()))


def test_the_rate_warms_up_and_then_falls_to_nothing_along_a_cosine():
    recipe = Recipe(epochs=10, lr=0.1, warmup_epochs=2)
    rates = [lr_at(step, recipe, steps_per_epoch=10) for step in range(100)]
    assert rates[:20] == pytest.approx([0.1 * (i + 1) / 20 for i in range(20)])
    assert rates[60] == pytest.approx(0.05)
    assert sorted(rates[20:], reverse=True) == rates[20:]
    assert rates[99] < 1e-4


def test_no_warm_up_starts_at_the_peak():
    assert lr_at(0, Recipe(lr=0.1, warmup_epochs=0), steps_per_epoch=5) == 0.1


def test_momentum_is_nesterovs(model):
    assert all(
        g["nesterov"] and g["momentum"] == 0.9
        for g in build_optimizer(model, Recipe(), backbone_lr=1.0).param_groups
    )
    assert isinstance(
        build_optimizer(model, Recipe(momentum=0.0), backbone_lr=1.0), torch.optim.SGD
    )


def test_layer_decay_falls_from_the_last_block_to_the_first(model):
    optimizer = build_optimizer(model, Recipe(layer_decay=0.5), backbone_lr=0.1)
    factors = {id(p): g["factor"] for g in optimizer.param_groups for p in g["params"]}
    backbone = model.backbone
    chain = [b for b in backbone.chain if list(backbone.get_submodule(b).parameters())]
    for depth, block in enumerate(reversed(chain), 1):
        for parameter in backbone.get_submodule(block).parameters():
            assert factors[id(parameter)] == pytest.approx(0.1 * 0.5**depth), block
    assert {factors[id(p)] for p in model.new_parameters()} == {1.0}


def test_adamw_has_the_groups_of_sgd(model):
    recipe = Recipe(optimizer="adamw", momentum=0.8, weight_decay=0.3, decay_norm=False)
    optimizer = build_optimizer(model, recipe, backbone_lr=0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {g["betas"] for g in optimizer.param_groups} == {(0.8, 0.999)}
    groups = {(g["factor"], g["weight_decay"]) for g in optimizer.param_groups}
    assert groups == {(0.1, 0.3), (0.1, 0.0), (1.0, 0.3), (1.0, 0.0)}
