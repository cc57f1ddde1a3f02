"""The cross-layer self-attention of CS (Chen, Yu, Liang, ICCECE 2023).

A low map is refined by a high map, in channels and in space. The abstract states two things. Both
layers give a channel self-attention and a spatial one, which are "loaded into the low level". The
two refined low-level features are combined first, and then fused with the high level. Everything
else is reconstructed; the equations are at `CrossLayerSelf`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finedge.train.layers.channel_attention import ChannelAttention
from finedge.train.layers.cross_layer_attention import CrossLayerAttention
from finedge.train.layers.pooling import average_to
from finedge.train.layers.uniform import Attention, without_gradient


class HighLevel(nn.Module):
    """H = 1x1(C5) at the common width, and the three projections of it that all low maps use.

    Each projection runs once.

    Shapes: [B, channels, Hh, Wh] -> three times [B, width, Hh, Wh].
    """

    def __init__(self, channels: int, *, width: int, attention: Attention = "softmax") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.channel_query, self.key, self.value = (
            nn.Conv2d(width, width, 1, bias=False) for _ in range(3)
        )
        if attention == "uniform":
            without_gradient(self.channel_query, self.key)

    def forward(self, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return channel queries, spatial keys and spatial values, each [B, width, Hh, Wh]."""
        reduced = self.reduce(high)
        return self.channel_query(reduced), self.key(reduced), self.value(reduced)


class CrossLayerSelf(nn.Module):
    """Refine one low map by a high map, in channels and in space.

    F = ReLU(BN(1x1([L + gamma_c A_c L; L + gamma_s V A_s^T]))), with L = 1x1(low).

    A_c = softmax over columns of Q K^T / sqrt(Nh). Q are the channel queries of the high map, and
    K = 1x1(L averaged to the high grid).
    A_s = softmax over the Nh high positions of Q^T K / sqrt(width), with Q = 1x1(L), and K, V of
    the high map.

    The reasons: only with L on the right of A_c does a channel matrix of both layers give a
    low-level map. The output of the spatial part must lie on the low grid, so the low map is the
    query. Both gammas are learnt scalars that start at 0 (DANet, arXiv 1809.02983): at the start F
    is ReLU(BN(1x1([L; L]))), exactly, without the high map.

    Shapes: [B, channels, h, w] and what `HighLevel` returns -> [B, width, h, w].

    Args:
        channels: of the low map.
        width: d, of everything inside and of F.
        attention: with `uniform`, A_c and A_s have equal entries. Queries and keys are there, but
            have no effect and are not trained.
    """

    def __init__(self, channels: int, *, width: int, attention: Attention = "softmax") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.channel_key, self.spatial_query = (
            nn.Conv2d(width, width, 1, bias=False) for _ in range(2)
        )
        self.channel = ChannelAttention(attention=attention)
        self.spatial = CrossLayerAttention(scale=width**-0.5, attention=attention)
        self.channel_gamma, self.spatial_gamma = (nn.Parameter(torch.zeros(())) for _ in range(2))
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        if attention == "uniform":
            without_gradient(self.channel_key, self.spatial_query)

    def forward(self, low: Tensor, high: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return F [B, width, h, w] of a low map [B, channels, h, w] and `HighLevel`'s result."""
        channel_query, key, value = high
        x = self.reduce(low)
        grid = (channel_query.shape[2], channel_query.shape[3])
        channel_key = self.channel_key(average_to(x, grid=grid))
        by_channel = x + self.channel_gamma * self.channel(channel_query, channel_key, x)
        by_position = x + self.spatial_gamma * self.spatial(self.spatial_query(x), key, value)
        fused: Tensor = self.fuse(torch.cat([by_channel, by_position], dim=1))
        return fused
