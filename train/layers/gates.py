"""The gates of multi-attention fusion (Du and Ma): a mask in (0, 1) on a feature map.

The mask comes from the map's own statistics. The paper names channel attention (CA), spatial
attention (SA) and their "confusion" (CSCA) in the residual units, without equations. The gates here
are those of squeeze-and-excitation (arXiv 1709.01507) and CBAM (arXiv 1807.06521).

The last layer of every gate starts at zero, so every mask starts at sigmoid(0) = 1/2. `Gated`
compensates for it: a pretrained network starts unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

REDUCTION = 16
MIN_HIDDEN = 4  # channels: on the narrow layers of EfficientNet-Lite, C/16 would be 1 or 2
KERNEL = 7


class ChannelScores(nn.Module):
    """W2 ReLU(W1 mean(x)) with biases: one number for each channel, from its mean over positions.

    Args:
        channels: C; hidden are C/16, at least 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(MIN_HIDDEN, channels // REDUCTION)
        self.reduce, self.relu, self.expand = (
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )
        _zero(self.expand)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, 1, 1]."""
        scores: Tensor = self.expand(self.relu(self.reduce(x.mean(dim=(2, 3), keepdim=True))))
        return scores


class SpatialScores(nn.Module):
    """A 7x7 convolution without bias over [mean over channels; max over channels].

    It gives one number for each position.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, KERNEL, padding=KERNEL // 2, bias=False)
        _zero(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, 1, h, w]."""
        scores: Tensor = self.conv(
            torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        )
        return scores


class JointScores(nn.Module):
    """m_c(x) + m_s(x): the scores of channels and of positions, added before the sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel, self.spatial, self.spatial_mask = (
            ChannelScores(channels),
            SpatialScores(),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        spatial: Tensor = self.spatial(x)
        # Only a tap reads this: the mask [B, 1, h, w] of a channel whose score is 0.
        self.spatial_mask(spatial)
        scores: Tensor = self.channel(x) + spatial
        return scores


class Gate(nn.Module):
    """x * sigmoid(scores(x)).

    Args:
        scores: from a map [B, C, h, w] to numbers that broadcast to it.
    """

    def __init__(self, scores: nn.Module) -> None:
        super().__init__()
        self.scores, self.mask = scores, nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        mask: Tensor = self.mask(self.scores(x))
        return x * mask


class ChannelGate(Gate):
    """CA: the mask is [B, C, 1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__(ChannelScores(channels))


class SpatialGate(Gate):
    """SA: the mask is [B, 1, h, w]."""

    def __init__(self) -> None:
        super().__init__(SpatialScores())


class JointGate(Gate):
    """CSCA: one mask [B, C, h, w] of both scores."""

    def __init__(self, channels: int) -> None:
        super().__init__(JointScores(channels))


class SequentialGate(nn.Module):
    """CSCA in CBAM's order: the channel gate, then the spatial gate on its output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel, self.spatial = ChannelGate(channels), SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        gated: Tensor = self.spatial(self.channel(x))
        return gated


class Gated(nn.Module):
    """The last BatchNorm of a residual branch, followed by a gate.

    It replaces that BatchNorm and keeps its weights.

    Args:
        norm: its weight and bias are multiplied with `gain`.
        gate: any of the above.
        gain: 2 compensates for a mask that starts at 1/2, exactly and at no cost in inference.
    """

    def __init__(self, norm: nn.BatchNorm2d, gate: nn.Module, *, gain: float) -> None:
        super().__init__()
        self.norm, self.gate = norm, gate
        with torch.no_grad():
            norm.weight.mul_(gain)
            norm.bias.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        gated: Tensor = self.gate(self.norm(x))
        return gated


def _zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
