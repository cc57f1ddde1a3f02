"""The uniform control: attention replaced by the mean of what it attends to.

A model with `attention = "uniform"` has the same parameters and the same mean, but nothing in it
looks anywhere. What such a model reaches is due to its levels and parameters, not to attention.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from finedge.errors import UsageError

Attention = Literal["softmax", "uniform"]


def require_attention(attention: str) -> None:
    """Refuse a value that is not one of `Attention`; raises `UsageError`."""
    if attention not in get_args(Attention):
        expected = f"one of {', '.join(get_args(Attention))}"
        raise UsageError(f"unknown attention '{attention}'", expected=expected)


def mean_of_positions(v: Tensor, *, grid: Tensor) -> Tensor:
    """Return the mean over the positions of `v` at every position of `grid`.

    Shapes: v [B, C, Hv, Wv] and grid [B, any, H, W] -> [B, C, H, W], in the dtype of `v`.
    """
    mean = v.mean(dim=(2, 3), keepdim=True)
    return mean.expand(-1, -1, grid.shape[2], grid.shape[3])


def mean_of_channels(v: Tensor, *, groups: int) -> Tensor:
    """Return the mean over the channels of each group, in every channel of that group.

    Shapes: [B, C, H, W] -> [B, C, H, W], in the dtype of `v`.
    """
    batch, channels, height, width = v.shape
    in_groups = v.reshape(batch, groups, channels // groups, height, width)
    return in_groups.mean(dim=2, keepdim=True).expand_as(in_groups).flatten(1, 2)


def without_gradient(*layers: nn.Module) -> None:
    """Freeze layers that a uniform attention does not read.

    They would get no gradient, and DistributedDataParallel refuses that of a trained parameter.
    """
    for layer in layers:
        layer.requires_grad_(False)
