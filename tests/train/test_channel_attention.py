import numpy as np
import pytest
import torch

from finedge import ops
from finedge.train.layers.channel_attention import ChannelAttention, channel_attention

OP = torch.ops.finedge.channel_attention.default


def tensors(*, dtype=torch.float32, grad=False, values=(5, 4)):
    make = torch.Generator().manual_seed(0)
    shapes = ((2, 6, 2, 3), (2, 6, 2, 3), (2, 6, *values))
    return [
        torch.randn(shape, generator=make, dtype=torch.float64).to(dtype).requires_grad_(grad)
        for shape in shapes
    ]


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("values", [(1, 1), (2, 3), (5, 4)])
def test_the_operator_agrees_with_the_numpy_reference(values, groups):
    q, k, v = tensors(values=values)
    expected = ops.channel_attention(q.numpy(), k.numpy(), v.numpy(), groups=groups, scale=0.7)
    np.testing.assert_allclose(
        channel_attention(q, k, v, groups=groups, scale=0.7).numpy(), expected, rtol=1e-5, atol=1e-6
    )


def test_large_logits_do_not_overflow():
    q, k, v = tensors()
    expected = ops.channel_attention(1e3 * q.numpy(), k.numpy(), v.numpy(), groups=2, scale=10.0)
    np.testing.assert_allclose(
        channel_attention(1e3 * q, k, v, groups=2, scale=10.0).numpy(),
        expected,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_keep_their_dtype_and_lose_only_rounding(dtype):
    q, k, v = tensors(dtype=dtype)
    y = channel_attention(q, k, v, groups=2, scale=0.7)
    exact = channel_attention(q.double(), k.double(), v.double(), groups=2, scale=0.7)
    assert y.dtype == dtype
    torch.testing.assert_close(y, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_hand_written_gradient_is_the_numerical_one(groups):
    assert torch.autograd.gradcheck(
        lambda q, k, v: channel_attention(q, k, v, groups=groups, scale=0.7),
        tensors(dtype=torch.float64, grad=True),
    )


def test_the_gradient_is_right_where_all_three_are_one_tensor():
    q, _, _ = tensors(dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(lambda x: channel_attention(x, x, x, groups=2, scale=0.7), (q,))


def test_the_gradient_can_be_differentiated_again():
    inputs = tensors(dtype=torch.float64, grad=True, values=(2, 1))
    assert torch.autograd.gradgradcheck(
        lambda q, k, v: channel_attention(q, k, v, groups=3, scale=0.7), inputs
    )


@pytest.mark.parametrize("grad", [False, True])
def test_pytorch_finds_the_registration_complete(grad):
    torch.library.opcheck(OP, (*tensors(grad=grad), 2, 0.7))


def test_memory_layout_does_not_matter():
    q, k, v = tensors()
    last = [x.to(memory_format=torch.channels_last) for x in (q, k, v)]
    torch.testing.assert_close(
        channel_attention(*last, groups=2, scale=0.7),
        channel_attention(q, k, v, groups=2, scale=0.7),
    )


def test_autocast_computes_in_float32_and_gradients_flow():
    q, k, v = tensors(grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = channel_attention(q.bfloat16(), k, v.bfloat16(), groups=2, scale=0.7)
    assert y.dtype == torch.float32
    y.square().sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0 for x in (q, k, v))


def test_the_module_scales_by_the_square_root_of_the_number_of_positions():
    q, k, v = tensors()
    torch.testing.assert_close(
        ChannelAttention(groups=2)(q, k, v), channel_attention(q, k, v, groups=2, scale=6**-0.5)
    )
