"""Cross-layer attention as one PyTorch operator, `finedge::cross_layer_attention`.

`finedge.ops` has the same operator in numpy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from finedge.train.layers.uniform import Attention, mean_of_positions, require_attention


@torch.library.custom_op("finedge::cross_layer_attention", mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    flat_q, flat_k, flat_v = _flat(q), _flat(k), _flat(v)
    y = flat_v @ _weights(flat_q, flat_k, scale).transpose(1, 2)
    return y.reshape(*_shape(q, v)).to(q.dtype)


def cross_layer_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """Attend from the positions of one layer to the positions of another.

    y = v softmax(scale q^T k)^T, softmax over key positions.

    The operator is one node of the exported graph. Inside autocast it runs in float32 and returns
    float32; the softmax of half-precision inputs is float32 too. The backward pass computes the
    attention weights again instead of keeping them.

    Args:
        q: floating [B, d, Hq, Wq] queries.
        k: [B, d, Hk, Wk] keys, same dtype.
        v: [B, dv, Hk, Wk] values, same dtype; may be `k` itself.
        scale: factor before the softmax, 1/sqrt(d) in the paper (arXiv 2005.09153).

    Returns:
        [B, dv, Hq, Wq], contiguous.
    """
    result: Tensor = torch.ops.finedge.cross_layer_attention(q, k, v, scale)
    return result


class CrossLayerAttention(nn.Module):
    """`cross_layer_attention` as a module, so that its output can be a tap.

    Shapes: q [B, d, Hq, Wq], k [B, d, Hk, Wk] and v [B, dv, Hk, Wk] -> [B, dv, Hq, Wq].

    >>> q, k = torch.rand(1, 64, 7, 7), torch.rand(1, 64, 14, 14)
    >>> CrossLayerAttention(scale=64**-0.5)(q, k, k).shape
    torch.Size([1, 64, 7, 7])

    Args:
        scale: factor before the softmax.
        attention: `uniform` gives the mean of v over its positions instead, for every query; only
            the shape of q is read.
    """

    def __init__(self, *, scale: float, attention: Attention = "softmax") -> None:
        super().__init__()
        require_attention(attention)
        self.scale, self.attention = scale, attention

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `cross_layer_attention`."""
        if self.attention == "uniform":
            return mean_of_positions(v, grid=q)
        return cross_layer_attention(q, k, v, scale=self.scale)


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return q.new_empty(_shape(q, v))


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    """Return the gradients of q, k and v.

    With p = softmax(scale q^T k), y = v p^T: dv = dy p; dp = dy^T v; ds = p (dp - rowsum(p dp));
    dq = scale k ds^T; dk = scale q ds.
    """
    q, k, v = ctx.saved_tensors
    flat_q, flat_k, flat_v, dy = _flat(q), _flat(k), _flat(v), _flat(gradient)
    p = _weights(flat_q, flat_k, ctx.scale)
    dp = dy.transpose(1, 2) @ flat_v
    ds = ctx.scale * p * (dp - (p * dp).sum(-1, keepdim=True))
    dq, dk, dv = flat_k @ ds.transpose(1, 2), flat_q @ ds, dy @ p
    return (
        dq.reshape_as(q).to(q.dtype),
        dk.reshape_as(k).to(k.dtype),
        dv.reshape_as(v).to(v.dtype),
        None,
    )


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    q, k, v, ctx.scale = inputs
    ctx.save_for_backward(q, k, v)


_attend.register_autograd(_backward, setup_context=_keep)
for device in ("cpu", "cuda"):
    _attend.register_autocast(device, torch.float32)


def _flat(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, HW], at least float32."""
    return x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """[B, d, Nq], [B, d, Nk] -> [B, Nq, Nk], rows sum to 1."""
    return torch.softmax(scale * (q.transpose(1, 2) @ k), dim=-1)


def _shape(q: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    return q.shape[0], v.shape[1], q.shape[2], q.shape[3]
