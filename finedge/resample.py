"""The resize and crop of `finedge/preprocess.py` as two matrices: crop = rows @ frame @ columns^T, channel by channel.

For graphs and kernels that take whole frames. The weights are those of Pillow's Resample.c (triangle or cubic filter, widened by the
scale when shrinking) and of OpenCV's resize.cpp; those libraries compute in fixed point, so results agree to 1 grey level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from finedge.preprocess import resized_shape
from finedge.spec import Preprocess

Matrix = NDArray[np.float32]
CUBIC = -0.5  # Pillow's a; OpenCV and PyTorch without antialias use -0.75


def resize_matrices(how: Preprocess, *, height: int, width: int) -> tuple[Matrix, Matrix]:
    """Return (rows [crop, height], columns [crop, width]), float32, for frames of height x width pixels.

    Each row sums to 1. Methods of Pillow round to grey levels, and cut to 0..255, after the columns and again after the rows; those of OpenCV
    once, at the end. Pillow from 13 on takes the rows of some tall frames first, which shows where a cubic filter passes 0 or 255.
    """
    size = resized_shape(height, width, how)
    shrinks = (
        size[0] <= height and size[1] <= width
    )  # OpenCV's area method interpolates unless both sides shrink
    rows, columns = (
        _whole(how.method, source, target, shrinks=shrinks)
        for source, target in zip((height, width), size, strict=True)
    )
    top, left = round((size[0] - how.crop) / 2), round((size[1] - how.crop) / 2)
    return rows[top : top + how.crop], columns[left : left + how.crop]


def _whole(method: str, source: int, target: int, *, shrinks: bool) -> Matrix:
    """Return [target, source] of the whole axis; what a filter reads beyond the edge is the edge pixel (OpenCV)."""
    weights = _area_growing if method == "cv2-area" and not shrinks else WEIGHTS[method]
    matrix = np.zeros((target, source))
    for i in range(target):
        for at, weight in weights(i, source / target, source):
            matrix[i, min(max(at, 0), source - 1)] += weight
    shares: NDArray[np.float64] = matrix / matrix.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


# Each takes an output position, source / target and the source's length; returns (source position, weight) pairs.
Weights = Callable[[int, float, int], Iterable[tuple[int, float]]]


def _pillow(support: float, weigh: Callable[[float], float]) -> Weights:
    """Resample.c, precompute_coeffs: the filter is as wide as an output pixel when shrinking, as an input pixel when enlarging."""

    def weights(index: int, scale: float, source: int) -> Iterable[tuple[int, float]]:
        centre, widened = (index + 0.5) * scale, max(scale, 1.0)
        first, last = int(centre - support * widened + 0.5), int(centre + support * widened + 0.5)
        return (
            (at, weigh((at - centre + 0.5) / widened))
            for at in range(max(first, 0), min(last, source))
        )

    return weights


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * CUBIC if x < 2 else 0.0


def _linear(index: int, scale: float, _source: int) -> Iterable[tuple[int, float]]:
    """resize.cpp, INTER_LINEAR: two pixels, also when shrinking."""
    position = (index + 0.5) * scale - 0.5
    at = math.floor(position)
    return ((at, 1 - (position - at)), (at + 1, position - at))


def _area(index: int, scale: float, source: int) -> Iterable[tuple[int, float]]:
    """resize.cpp, computeResizeAreaTab: the share of each source pixel that the output pixel covers."""
    begin, end = index * scale, min((index + 1) * scale, source)
    return (
        (at, max(0.0, min(at + 1, end) - max(at, begin)))
        for at in range(math.floor(begin), math.ceil(end))
    )


def _area_growing(index: int, scale: float, _source: int) -> Iterable[tuple[int, float]]:
    """resize.cpp, INTER_AREA where a side grows: linear, from one pixel to the next only where an output pixel covers both."""
    at = math.floor(index * scale)
    share = max(0.0, (index + 1) - (at + 1) / scale)
    share -= math.floor(share)
    return ((at, 1 - share), (at + 1, share))


WEIGHTS: dict[str, Weights] = {
    "pillow-bilinear": _pillow(1.0, _triangle),
    "pillow-bicubic": _pillow(2.0, _cubic),
    "cv2-area": _area,
    "cv2-linear": _linear,
}
