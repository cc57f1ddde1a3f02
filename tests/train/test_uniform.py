import numpy as np
import pytest
import torch

from finedge.errors import UsageError
from finedge.train.layers.attention_pooling import AttentionPooling
from finedge.train.layers.channel_attention import ChannelAttention
from finedge.train.layers.cross_layer_attention import CrossLayerAttention
from finedge.train.models import build_model

MODELS = ("cnl", "nl", "cs", "clca_cga", "attend_rectify")


def maps(*shapes):
    make = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=make) for shape in shapes]


def build(name, **options):
    torch.manual_seed(0)
    model = build_model(name, num_classes=5, backbone="mobilenetv2_035", **options)
    with torch.no_grad():  # gammas of 0 would hide the attention
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def test_uniform_attention_is_the_mean_of_the_values_at_every_query():
    q, k, v = maps((2, 4, 3, 2), (2, 4, 5, 4), (2, 6, 5, 4))
    y = CrossLayerAttention(scale=1.0, attention="uniform")(q, k, v)
    expected = np.empty((2, 6, 3, 2), np.float32)
    for image in range(2):
        for channel in range(6):
            expected[image, channel] = v[image, channel].numpy().mean()
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-6)


def test_uniform_attention_is_the_limit_of_scale_zero():
    q, k, v = maps((2, 4, 3, 2), (2, 4, 5, 4), (2, 6, 5, 4))
    y = CrossLayerAttention(scale=1.0, attention="uniform")(q, k, v)
    torch.testing.assert_close(y, CrossLayerAttention(scale=0.0)(q, k, v))


def test_uniform_channel_attention_is_the_mean_of_each_group():
    q, v = maps((2, 6, 3, 2), (2, 6, 5, 4))
    y = ChannelAttention(groups=3, attention="uniform")(q, q, v)
    expected = np.stack([v[:, c - c % 2 : c - c % 2 + 2].numpy().mean(axis=1) for c in range(6)], 1)
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-6)


def test_uniform_masks_classify_the_mean_of_the_map():
    (z,) = maps((2, 4, 5, 3))
    module = AttentionPooling(4, 7, heads=2, kernel_size=1, attention="uniform")
    logits, masks = module(z)
    torch.testing.assert_close(masks, torch.full((2, 2, 5, 3), 1 / 15))
    mean = z.mean(dim=(2, 3))[:, :, None].expand(-1, -1, 2)
    gates = torch.softmax(torch.tanh((mean * module.gate[:, :, 0]).sum(1)), dim=1)
    expected = module.classes((mean * gates[:, None]).flatten(1))
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_control_has_the_same_weights_and_another_answer(name):
    model, control = build(name).eval(), build(name, attention="uniform").eval()
    control.load_state_dict(model.state_dict())  # strict: the same names and shapes
    (images,) = maps((2, 3, 64, 64))
    main = next(output.name for output in model.outputs if output.role == "main")
    with torch.no_grad():
        assert not torch.equal(model(images)[main], control(images)[main])


@pytest.mark.parametrize("name", MODELS)
def test_every_trained_parameter_of_the_control_gets_a_gradient(name):
    model = build(name, attention="uniform")
    (images,) = maps((2, 3, 64, 64))
    model.loss(model(images), torch.tensor([0, 4])).backward()
    assert [k for k, p in model.named_parameters() if (p.grad is None) == p.requires_grad] == []


def test_an_unknown_attention_is_refused():
    with pytest.raises(UsageError, match="unknown attention 'mean'"):
        build("cnl", attention="mean")
