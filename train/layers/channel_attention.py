"""Channel attention as one PyTorch operator, `finedge::channel_attention`.

`finedge.ops` has the same operator in numpy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from finedge.train.layers.uniform import Attention, mean_of_channels, require_attention


@torch.library.custom_op("finedge::channel_attention", mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, groups: int, scale: float) -> Tensor:
    y = _weights(_split(q, groups), _split(k, groups), scale) @ _split(v, groups)
    return y.reshape(v.shape).to(q.dtype)


def channel_attention(q: Tensor, k: Tensor, v: Tensor, *, groups: int, scale: float) -> Tensor:
    """Mix the channels of a map: y = softmax(scale q k^T) v in each group of channels.

    The weights are the similarities of the channels of two other maps. The operator is one node of
    the exported graph. Precision and backward pass are as in `cross_layer_attention`.

    Args:
        q: floating [B, C, H, W] queries, one for each channel; C is a multiple of `groups`.
        k: [B, C, H, W] keys, same dtype.
        v: [B, C, Hv, Wv] values, same dtype, on any grid. All three may be one tensor.
        groups: number of groups; channels attend within their group only.
        scale: factor before the softmax over key channels.

    Returns:
        [B, C, Hv, Wv], contiguous.
    """
    result: Tensor = torch.ops.finedge.channel_attention(q, k, v, groups, scale)
    return result


class ChannelAttention(nn.Module):
    """`channel_attention` as a module, so that its output can be a tap.

    The scale is 1/sqrt(H W), from the grid of the queries.

    Shapes: q, k [B, C, H, W] and v [B, C, Hv, Wv] -> [B, C, Hv, Wv].

    >>> q = k = torch.rand(1, 8, 7, 7)
    >>> ChannelAttention(groups=2)(q, k, torch.rand(1, 8, 14, 14)).shape
    torch.Size([1, 8, 14, 14])

    Args:
        groups: of the channels.
        attention: `uniform` gives the mean of v over the channels of a group instead.
    """

    def __init__(self, *, groups: int = 1, attention: Attention = "softmax") -> None:
        super().__init__()
        require_attention(attention)
        self.groups, self.attention = groups, attention

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `channel_attention`."""
        if self.attention == "uniform":
            return mean_of_channels(v, groups=self.groups)
        return channel_attention(
            q, k, v, groups=self.groups, scale=(q.shape[2] * q.shape[3]) ** -0.5
        )


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, groups: int, scale: float) -> Tensor:
    return q.new_empty(v.shape)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    """Return the gradients of q, k and v.

    With p = softmax(scale q k^T), y = p v: dv = p^T dy; dp = dy v^T; ds = p (dp - rowsum(p dp));
    dq = scale ds k; dk = scale ds^T q.
    """
    q, k, v = ctx.saved_tensors
    rows, keys, values, dy = (_split(x, ctx.groups) for x in (q, k, v, gradient))
    p = _weights(rows, keys, ctx.scale)
    dp = dy @ values.transpose(2, 3)
    ds = ctx.scale * p * (dp - (p * dp).sum(-1, keepdim=True))
    dq, dk, dv = ds @ keys, ds.transpose(2, 3) @ rows, p.transpose(2, 3) @ dy
    return (
        dq.reshape(q.shape).to(q.dtype),
        dk.reshape(k.shape).to(k.dtype),
        dv.reshape(v.shape).to(v.dtype),
        None,
        None,
    )


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, float], output: Tensor) -> None:
    q, k, v, ctx.groups, ctx.scale = inputs
    ctx.save_for_backward(q, k, v)


_attend.register_autograd(_backward, setup_context=_keep)
for device in ("cpu", "cuda"):
    _attend.register_autocast(device, torch.float32)


def _split(x: Tensor, groups: int) -> Tensor:
    """[B, C, H, W] -> [B, groups, C / groups, HW], at least float32."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, -1).to(
        torch.promote_types(x.dtype, torch.float32)
    )


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """[B, G, c, N] twice -> [B, G, c, c], rows sum to 1."""
    return torch.softmax(scale * (q @ k.transpose(2, 3)), dim=-1)
