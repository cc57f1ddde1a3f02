import numpy as np
import pytest
import torch

from finedge import ops
from finedge.train.layers.cross_layer_attention import cross_layer_attention
from finedge.train.layers.non_local import CrossLayerNonLocal

OP = torch.ops.finedge.cross_layer_attention.default


def tensors(*, dtype=torch.float32, grad=False, keys=(5, 4), values=6):
    make = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 2, 3), (2, 3, *keys), (2, values, *keys))
    return [
        torch.randn(shape, generator=make, dtype=torch.float64).to(dtype).requires_grad_(grad)
        for shape in shapes
    ]


@pytest.mark.parametrize("values", [1, 3, 6])
@pytest.mark.parametrize("keys", [(1, 1), (5, 4)])
def test_the_operator_agrees_with_the_numpy_reference(keys, values):
    q, k, v = tensors(keys=keys, values=values)
    expected = ops.cross_layer_attention(q.numpy(), k.numpy(), v.numpy(), scale=0.7)
    np.testing.assert_allclose(
        cross_layer_attention(q, k, v, scale=0.7).numpy(), expected, rtol=1e-5, atol=1e-6
    )


def test_large_logits_do_not_overflow():
    q, k, v = tensors()
    expected = ops.cross_layer_attention(1e3 * q.numpy(), k.numpy(), v.numpy(), scale=10.0)
    np.testing.assert_allclose(
        cross_layer_attention(1e3 * q, k, v, scale=10.0).numpy(), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_keep_their_dtype_and_lose_only_rounding(dtype):
    q, k, v = tensors(dtype=dtype)
    y = cross_layer_attention(q, k, v, scale=0.7)
    exact = cross_layer_attention(q.double(), k.double(), v.double(), scale=0.7)
    assert y.dtype == dtype
    torch.testing.assert_close(y, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_the_hand_written_gradient_is_the_numerical_one():
    assert torch.autograd.gradcheck(
        lambda q, k, v: cross_layer_attention(q, k, v, scale=0.7),
        tensors(dtype=torch.float64, grad=True),
    )


def test_the_gradient_is_right_where_keys_and_values_are_one_tensor():
    q, k, _ = tensors(dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(lambda q, k: cross_layer_attention(q, k, k, scale=0.7), (q, k))


def test_the_gradient_can_be_differentiated_again():
    assert torch.autograd.gradgradcheck(
        lambda q, k, v: cross_layer_attention(q, k, v, scale=0.7),
        tensors(dtype=torch.float64, grad=True, keys=(2, 1), values=2),
    )


@pytest.mark.parametrize("grad", [False, True])
def test_pytorch_finds_the_registration_complete(grad):
    torch.library.opcheck(OP, (*tensors(grad=grad), 0.7))


def test_memory_layout_does_not_matter():
    q, k, v = tensors()
    last = [x.to(memory_format=torch.channels_last) for x in (q, k, v)]
    torch.testing.assert_close(
        cross_layer_attention(*last, scale=0.7), cross_layer_attention(q, k, v, scale=0.7)
    )


def test_autocast_computes_in_float32_and_gradients_flow():
    q, k, v = tensors(grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = cross_layer_attention(q.bfloat16(), k, v.bfloat16(), scale=0.7)
    assert y.dtype == torch.float32
    y.square().sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0 for x in (q, k, v))


def module(*, trained=True, **options):
    torch.manual_seed(0)
    made = CrossLayerNonLocal(12, responses=[4, 5, 6], width=8, **options)
    if trained:
        for bn in made.bn:
            torch.nn.init.uniform_(bn.weight)
            torch.nn.init.normal_(bn.bias)
        for convolution in (made.theta, *made.phi, *made.g, made.z):
            torch.nn.init.normal_(convolution.weight)
    return made.eval()


def maps():
    torch.manual_seed(1)
    return torch.randn(2, 12, 3, 3), [
        torch.randn(2, 4, 6, 6),
        torch.randn(2, 5, 6, 4),
        torch.randn(2, 6, 3, 2),
    ]


def test_the_module_is_the_papers_sum_over_responses():
    made, (query, responses) = module(), maps()
    q = torch.einsum("dc,bcn->bdn", made.theta.weight[:, :, 0, 0], query.flatten(2))
    expected = query
    for x, phi, g, bn in zip(responses, made.phi, made.g, made.bn, strict=True):
        k, v = (torch.einsum("dc,bcn->bdn", w.weight[:, :, 0, 0], x.flatten(2)) for w in (phi, g))
        attention = torch.softmax(torch.einsum("bdq,bdk->bqk", q, k) / 8**0.5, dim=2)
        y = torch.einsum("bqk,bdk->bdq", attention, v).reshape(2, 8, 3, 3)
        expected = expected + bn(made.z(y))
    torch.testing.assert_close(made(query, responses), expected, rtol=1e-4, atol=1e-4)


def test_the_joint_form_is_one_softmax_over_all_positions():
    made, (query, responses) = module(joint=True), maps()
    q = made.theta(query).flatten(2)
    k, v = (
        torch.cat([w(x).flatten(2) for w, x in zip(ws, responses, strict=True)], dim=2)
        for ws in (made.phi, made.g)
    )
    y = (v @ torch.softmax(q.transpose(1, 2) @ k / 8**0.5, dim=2).transpose(1, 2)).reshape(
        2, 8, 3, 3
    )
    torch.testing.assert_close(
        made(query, responses), query + made.bn[0](made.z(y)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("joint", [False, True])
def test_pooled_keys_are_those_of_the_largest_of_four_positions(joint):
    query, responses = maps()
    even = [x[:, :, : x.shape[2] // 2 * 2] for x in responses]
    largest = [x.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5)) for x in even]
    pooled = module(joint=joint, pooled_keys=True)
    assert torch.equal(pooled(query, even), module(joint=joint)(query, largest))


def test_pooled_keys_cover_odd_sides_and_single_rows():
    pooled, (query, responses) = module(pooled_keys=True), maps()
    odd = [responses[0][:, :, :5], responses[1][:, :, :1], responses[2][..., :1]]
    even = [odd[0][:, :, [0, 1, 2, 3, 4, 4]], odd[1][:, :, [0, 0]], odd[2][:, :, [0, 1, 2, 2]]]
    even[2] = even[2][..., [0, 0]]
    assert torch.equal(pooled(query, odd), pooled(query, even))


@pytest.mark.parametrize("joint", [False, True])
def test_a_new_module_is_exactly_the_identity(joint):
    query, responses = maps()
    assert torch.equal(module(joint=joint, trained=False)(query, responses), query)


def test_theta_runs_once_and_each_response_is_one_node():
    program = torch.export.export(module(), maps())
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count(OP) == 3
    assert targets.count(torch.ops.aten.conv2d.default) == 1 + 3 * 2 + 3  # theta; phi and g; z
