"""The resize and crop of `finedge/preprocess.py` as halvings and two matrices.

Graphs that take whole frames use them. For each channel, crop = rows @ part @ columns^T. The
weights are those of Pillow's Resample.c (a triangle or cubic filter, widened by the scale when
shrinking), of OpenCV's resize.cpp, and of `finedge/antialias.py`. Those libraries compute in fixed
point, so results agree to 1 grey level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.antialias import Axis
from finedge.preprocess import ANTIALIAS, crop_axes, resized_shape
from finedge.spec import Preprocess

Matrix = NDArray[np.float32]
CUBIC = -0.5  # Pillow's a; OpenCV and PyTorch without antialias use -0.75


@dataclass(frozen=True)
class Resampling:
    """How a part of a frame becomes the crop.

    Attributes:
        top: the first row of the part.
        bottom: one past its last row.
        left: the first column of the part.
        right: one past its last column.
        halvings: what is done first: (2, 2), (2, 1) or (1, 2) rows and columns become their mean,
            rounded half up to grey levels, one entry after the other.
        rows: float32 [crop, rows of the part after the halvings]; each row sums to 1.
        columns: float32 [crop, columns of the part after the halvings]; each row sums to 1.
        rounds_between: the products are rounded to grey levels after the columns too, not only at
            the end.
    """

    top: int
    bottom: int
    left: int
    right: int
    halvings: tuple[tuple[int, int], ...]
    rows: Matrix
    columns: Matrix
    rounds_between: bool


def resampling(config: Preprocess, *, height: int, width: int) -> Resampling:
    """Return the resize and crop for frames of height x width pixels.

    Pillow rounds to grey levels and clips to 0..255 twice: after the columns and after the rows.
    OpenCV does so once, at the end. Pillow 13 and later processes the rows of some tall frames
    first. That shows where a cubic filter exceeds 0..255.
    """
    if config.method == ANTIALIAS:
        return _antialiased(*crop_axes(height, width, config))
    rows, columns = _whole_matrices(config, height=height, width=width)
    (top, bottom), (left, right) = _used_range(rows), _used_range(columns)
    rows, columns = rows[:, top:bottom], columns[:, left:right]
    between = config.method.startswith("pillow")
    return Resampling(top, bottom, left, right, (), rows, columns, between)


def _antialiased(rows: Axis, columns: Axis) -> Resampling:
    steps = range(max(rows.halvings, columns.halvings))
    halvings = tuple((1 + (n < rows.halvings), 1 + (n < columns.halvings)) for n in steps)
    matrices = _blur_and_interpolate(rows), _blur_and_interpolate(columns)
    return Resampling(
        rows.start, rows.stop, columns.start, columns.stop, halvings, *matrices, False
    )


def _blur_and_interpolate(axis: Axis) -> Matrix:
    """Return the matrix [target, pixels] of steps 2 and 3 of `finedge/antialias.py`."""
    size, weight = axis.pixels, axis.blur / 256
    blur = np.zeros((size, size))
    for at in range(size):
        for source, share in ((at - 1, weight), (at, 1 - 2 * weight), (at + 1, weight)):
            blur[at, min(max(source, 0), size - 1)] += share
    linear = _axis_matrix("cv2-linear", size, axis.target, shrinks=True)
    return (linear @ blur).astype(np.float32)


def _whole_matrices(config: Preprocess, *, height: int, width: int) -> tuple[Matrix, Matrix]:
    """Return (rows [crop, height], columns [crop, width]) of the methods without halvings."""
    size = resized_shape(height, width, config)
    # OpenCV's area method interpolates unless both sides shrink.
    shrinks = size[0] <= height and size[1] <= width
    rows, columns = (
        _axis_matrix(config.method, source, target, shrinks=shrinks)
        for source, target in zip((height, width), size, strict=True)
    )
    top, left = round((size[0] - config.crop) / 2), round((size[1] - config.crop) / 2)
    return rows[top : top + config.crop], columns[left : left + config.crop]


def _used_range(matrix: Matrix) -> tuple[int, int]:
    """Return the first source position with a weight, and one past the last."""
    used = np.flatnonzero(matrix.any(axis=0))
    return int(used[0]), int(used[-1]) + 1


def _axis_matrix(method: str, source: int, target: int, *, shrinks: bool) -> Matrix:
    """Return the matrix [target, source] of one axis, without the crop.

    Beyond the edge a filter reads the edge pixel, as OpenCV does.
    """
    weights = _area_growing if method == "cv2-area" and not shrinks else WEIGHTS[method]
    matrix = np.zeros((target, source))
    for i in range(target):
        for position, weight in weights(i, source / target, source):
            matrix[i, min(max(position, 0), source - 1)] += weight
    normalised: NDArray[np.float64] = matrix / matrix.sum(axis=1, keepdims=True)
    return normalised.astype(np.float32)


# A function of the output position, source / target, and the length of the source. It returns
# (source position, weight) pairs.
Weights = Callable[[int, float, int], Iterable[tuple[int, float]]]


def _pillow(support: float, weigh: Callable[[float], float]) -> Weights:
    """Pillow, Resample.c, precompute_coeffs.

    The filter is as wide as an output pixel when shrinking, and as an input pixel when enlarging.
    """

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
    """OpenCV, resize.cpp, INTER_LINEAR: two pixels, also when shrinking."""
    position = (index + 0.5) * scale - 0.5
    at = math.floor(position)
    return ((at, 1 - (position - at)), (at + 1, position - at))


def _area(index: int, scale: float, source: int) -> Iterable[tuple[int, float]]:
    """OpenCV, resize.cpp, computeResizeAreaTab.

    The weight is the share of each source pixel that the output pixel covers.
    """
    begin, end = index * scale, min((index + 1) * scale, source)
    return (
        (at, max(0.0, min(at + 1, end) - max(at, begin)))
        for at in range(math.floor(begin), math.ceil(end))
    )


def _area_growing(index: int, scale: float, _source: int) -> Iterable[tuple[int, float]]:
    """OpenCV, resize.cpp, INTER_AREA where a side grows.

    It is linear between two pixels, but only where an output pixel covers both.
    """
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
