import pytest
import torch

from finedge.errors import UsageError
from finedge.train.models import build_model, names
from finedge.train.quick.cached_backbone import CachedBackbone, map_shapes

INSIDE = {"ca", "sa", "csca"}  # their gates are in the backbone


def build(name):
    torch.manual_seed(0)
    return build_model(name, num_classes=3, backbone="mobilenetv2_035").eval()


@pytest.mark.parametrize("name", sorted(set(names()) - INSIDE))
def test_a_model_on_cached_maps_answers_as_on_the_images(name):
    model, images = build(name), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        blocks = map_shapes(model, size=64)
        _, maps = model.backbone.run(images, taps=blocks)
        assert {block: tuple(m.shape[1:]) for block, m in maps.items()} == blocks
        model.backbone = CachedBackbone(model.backbone)
        model.backbone.maps = maps
        answer = model(torch.empty(2, 0))
    for output, scores in expected.items():
        torch.testing.assert_close(answer[output], scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_a_model_with_layers_inside_the_backbone_is_refused(name):
    with pytest.raises(UsageError, match="its new layers sit inside the backbone"):
        map_shapes(build(name), size=64)


def test_the_backbone_stays_frozen_and_its_names_stay():
    model = build("plain")
    state = set(model.state_dict())
    model.backbone = CachedBackbone(model.backbone)
    model.train()
    assert set(model.state_dict()) == state
    assert not any(module.training for module in model.backbone.modules())
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert model.classifier.training


def test_stages_that_are_not_frozen_run_on_the_last_frozen_map():
    model, images = build("cnl"), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)["logits"]
        shapes = map_shapes(model, size=64, stages=2)
        assert list(shapes) == [model.backbone.stages[1]]  # cnl's responses come later
        _, maps = model.backbone.run(images, taps=shapes)
        model.backbone = CachedBackbone(model.backbone, stages=2)
        model.backbone.maps = maps
        answer = model(torch.empty(2, 0))["logits"]
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)
    model.train()
    frozen = set(model.backbone.frozen_blocks())
    for block in model.backbone.chain:
        module = model.backbone.get_submodule(block)
        assert module.training == (block not in frozen)
        assert all(p.requires_grad == (block not in frozen) for p in module.parameters())


def test_the_maps_of_a_model_are_all_below_the_frozen_end():
    model = build("cnl")
    shapes = map_shapes(model, size=64, stages=4)
    order = [model.backbone.chain.index(block) for block in shapes]
    assert order == sorted(order)
    assert list(shapes)[-1] == model.backbone.stages[3]
    assert set(model.place.responses) <= set(shapes)
