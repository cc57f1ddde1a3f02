"""The attention module of Attend and Rectify (Rodriguez et al., ECCV 2018, arXiv 1807.07320).

The equations are from the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finedge.train.layers.uniform import Attention, require_attention, without_gradient


class AttentionMasks(nn.Conv2d):
    """K masks of a map, H = softmax(W_H * Z) over positions.

    A port of the paper takes the softmax over channels, which is a mistake.

    Args:
        channels: C of the map.
        heads: K.
        kernel_size: of W_H, a convolution without bias; odd.
        attention: with `uniform` every mask is 1 / (h w) at each position. W_H is there, but has no
            effect and is not trained.
    """

    def __init__(
        self, channels: int, heads: int, *, kernel_size: int, attention: Attention = "softmax"
    ) -> None:
        super().__init__(channels, heads, kernel_size, padding=kernel_size // 2, bias=False)
        nn.init.kaiming_normal_(self.weight)
        require_attention(attention)
        self.attention = attention
        if attention == "uniform":
            without_gradient(self)

    def forward(self, features: Tensor) -> Tensor:
        """Return masks [B, K, h, w] of a map [B, C, h, w]: >= 0, each with the sum 1."""
        if self.attention == "uniform":
            batch, _, height, width = features.shape
            shape = (batch, self.out_channels, height, width)
            return features.new_full(shape, 1 / (height * width))
        scores: Tensor = super().forward(features)
        return torch.softmax(scores.flatten(2), dim=2).reshape(-1, *scores.shape[1:])


class AttentionPooling(nn.Module):
    """Logits of one map: K masks select positions, K heads classify them, a gate weighs the heads.

    Published, with * a convolution and sums over positions:
    o_k = sum H_k . (W_O * Z)_k,
    g = softmax_k(tanh(sum H_k . (W_g * Z)_k)),
    logits = sum_k g_k o_k.

    Both convolutions are linear, so pooling first gives the same function. For each head k and tap
    t of the kernel P[c, k, t] = sum of Z_c . H_k shifted by t (zero outside), and the convolutions
    become products with P. The masks are shifted, not the map, and no class map is built: 33 MMAC
    instead of 2920 on a 28 x 28 map of 512 channels with 200 classes.

    Shapes: a map [B, C, h, w] -> logits [B, L] and masks [B, K, h, w].

    Args:
        channels: C of the map.
        num_classes: L.
        heads: K.
        kernel_size: of all three convolutions; odd, 3 in the paper.
        attention: see `AttentionMasks`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        heads: int,
        kernel_size: int,
        attention: Attention = "softmax",
    ) -> None:
        super().__init__()
        self.masks = AttentionMasks(channels, heads, kernel_size=kernel_size, attention=attention)
        taps = kernel_size**2
        # W_g [C, K, t] and W_O [L, (C, K, t)]; t counts the taps of the kernel from last to first.
        self.gate = nn.Parameter(torch.empty(channels, heads, taps))
        self.classes = nn.Linear(channels * heads * taps, num_classes, bias=False)
        std = (2 / (channels * taps)) ** 0.5  # Kaiming normal of the published convolutions
        for weight in (self.gate, self.classes.weight):
            nn.init.normal_(weight, std=std)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, L] and masks [B, K, h, w] of a map [B, C, h, w]."""
        masks = self.masks(features)
        shifted = _shifted(masks, self.masks.kernel_size[0])
        pooled = (features.flatten(2) @ shifted.transpose(1, 2)).reshape(-1, *self.gate.shape)
        gates = torch.softmax(torch.tanh((pooled * self.gate).sum(dim=(1, 3))), dim=1)
        return self.classes((pooled * gates[:, None, :, None]).flatten(1)), masks


def overlap(masks: Tensor) -> Tensor:
    """Return how much the masks [B, K, h, w] of a module overlap: a scalar >= 0.

    It is the paper's regulariser (authors' code): masks averaged over 2 x 2 positions, their Gram
    matrix [B, K, K], off-diagonal entries squared, mean over all B K K entries. As in that code an
    odd last row or column is left out. A side of one position, which fails there, is not averaged.
    """
    small = F.avg_pool2d(masks, [min(2, side) for side in masks.shape[2:]]).flatten(2)
    gram = small @ small.transpose(1, 2)
    return (gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))).square().mean()


def _shifted(masks: Tensor, kernel_size: int) -> Tensor:
    """[B, K, h, w] -> [B, K k k, h w]: each mask shifted by the k x k offsets, 0 from outside.

    A Gather does it: a Concat of slices would be quantized in INT8 files, and masks are useless
    in 8 bits.
    """
    if kernel_size == 1:
        return masks.flatten(2)
    heads, height, width = masks.shape[1:]
    rows, columns = (_windows(side, kernel_size, like=masks) for side in (height, width))
    shifted = F.pad(masks, [kernel_size // 2] * 4).index_select(2, rows).index_select(3, columns)
    windows = shifted.reshape(-1, heads, kernel_size, height, kernel_size, width)
    return windows.transpose(3, 4).reshape(-1, heads * kernel_size**2, height * width)


def _windows(side: int, kernel_size: int, *, like: Tensor) -> Tensor:
    """Return int64 [k side]: the positions of a padded side that each of the k offsets reads."""
    offsets, positions = (torch.arange(n, device=like.device) for n in (kernel_size, side))
    return (offsets[:, None] + positions).flatten()
