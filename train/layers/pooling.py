"""Pooling: to another grid, to half the sides, and over the largest values of a map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def average_to(features: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Average a map down to the grid of a later layer: [B, C, h, w] -> [B, C, *grid].

    A layer of stride s after one with h positions on a side has ceil(h / s) positions. Cells of
    ceil(h / ceil(h / s)) positions thus cover the map in the same number of cells. Where the last
    cells pass the border, the mean is over the positions inside. This is one AveragePool node, also
    for sides that the stride does not divide: there adaptive pooling overlaps its cells, and ONNX
    has no node for it.
    """
    height, width = features.shape[2:]
    cell = (-(-height // grid[0]), -(-width // grid[1]))
    if cell == (1, 1):
        return features
    # ceil_mode only where it is needed: runtimes treat it differently, and elsewhere it changes
    # nothing.
    partial = height % cell[0] != 0 or width % cell[1] != 0
    return F.avg_pool2d(features, cell, ceil_mode=partial, count_include_pad=False)


def halved(features: Tensor) -> Tensor:
    """Keep the largest of each 2 x 2 positions: [B, C, h, w] -> [B, C, ceil(h / 2), ceil(w / 2)].

    The last cell of an odd side has one position across that side.
    """
    height, width = features.shape[2:]
    cell = (min(2, height), min(2, width))
    partial = height % cell[0] != 0 or width % cell[1] != 0  # only where needed, as above
    return F.max_pool2d(features, cell, ceil_mode=partial)


def mean_of_largest(features: Tensor, *, count: int) -> Tensor:
    """Return the mean of the `count` largest values of each channel: [B, C, h, w] -> [B, C].

    Where there are fewer values it is the mean of all.
    """
    positions = features.flatten(2)
    if positions.shape[2] <= count:  # OpenCV 4 refuses a TopK of all values
        return features.mean(dim=(2, 3))
    return positions.topk(count, dim=2).values.mean(dim=2)
