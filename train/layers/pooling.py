"""Pooling by the grid wanted: between the maps of two layers, and of the largest values of a map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def average_to(features: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Average a map down to the grid of a later layer: [B, C, h, w] -> [B, C, *grid].

    A layer of stride s behind one of h positions a side has ceil(h / s), so cells of ceil(h / ceil(h / s)) positions cover the map
    in just as many cells; where the last ones stick out, the mean is over the positions that are there. One AveragePool node, also
    for sides that the stride does not divide, where adaptive pooling overlaps its cells and ONNX has no node for it.
    """
    height, width = features.shape[2:]
    cell = (-(-height // grid[0]), -(-width // grid[1]))
    if cell == (1, 1):
        return features
    # ceil_mode only where it is needed: it changes nothing otherwise, and not every runtime treats it alike.
    partial = height % cell[0] != 0 or width % cell[1] != 0
    return F.avg_pool2d(features, cell, ceil_mode=partial, count_include_pad=False)


def mean_of_largest(features: Tensor, *, count: int) -> Tensor:
    """Return the mean of the `count` largest values of each channel, of all where there are fewer: [B, C, h, w] -> [B, C]."""
    positions = features.flatten(2)
    if positions.shape[2] <= count:  # a TopK of all is one that OpenCV 4 refuses
        return features.mean(dim=(2, 3))
    return positions.topk(count, dim=2).values.mean(dim=2)
