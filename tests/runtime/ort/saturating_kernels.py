"""ONNX Runtime's INT8 kernels in numpy, with sums of 16 bits as on x86 without VNNI.

`vpmaddubsw` multiplies unsigned by signed bytes, adds the products of two neighbours and clamps the
sum to 16 bits; the clamped sums are then added in 32 bits. What is a neighbour of what is the order
of the weights in memory (`finedge.graph.reduce_range.kernel_rows`). Rounding and clamping of the
result are as in `MlasRequantizeOutput`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST = -(2**15), 2**15 - 1


@dataclass(frozen=True)
class Sums:
    """Sums of products, int64 [..., N], and how many pairs of products were clamped."""

    values: NDArray[np.int64]
    clamped: int


def summed(x: NDArray[np.integer], w: NDArray[np.int8], *, bits: int) -> Sums:
    """Return x [..., K] (0 to 255) times w [N, K], with sums of pairs in 16 or 32 bits."""
    odd = x.shape[-1] % 2
    a = np.pad(x.astype(np.int64), [(0, 0)] * (x.ndim - 1) + [(0, odd)])
    b = np.pad(w.astype(np.int64), [(0, 0), (0, odd)])
    products = a[..., None, :] * b
    pairs = products.reshape(*products.shape[:-1], -1, 2).sum(axis=-1)
    kept = np.clip(pairs, SMALLEST, LARGEST) if bits == 16 else pairs
    return Sums(kept.sum(axis=-1), int((kept != pairs).sum()))


def patches(
    x: NDArray[np.integer],
    kernel: tuple[int, int],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: int,
) -> NDArray[np.integer]:
    """Return the windows of x [B, C, H, W] as [B, H', W', kernel positions, C]."""
    top, left, bottom, right = pads
    edges = [(0, 0), (0, 0), (top, bottom), (left, right)]
    padded = np.pad(x, edges, constant_values=fill).transpose(0, 2, 3, 1)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    rows = range(0, padded.shape[1] - reach[0] + 1, strides[0])
    columns = range(0, padded.shape[2] - reach[1] + 1, strides[1])
    down, across = (
        range(0, n, d) for n, d in zip(reach, dilations, strict=True)
    )
    windows = [
        [[padded[:, r + i, c + j] for i in down for j in across] for c in columns] for r in rows
    ]
    return np.array(windows).transpose(3, 0, 1, 2, 4)


def convolved(
    x: NDArray[np.integer],
    w: NDArray[np.int8],
    *,
    zero: int,
    groups: int = 1,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    bits: int = 16,
) -> Sums:
    """Return the sums of a convolution [B, M, H', W'], less the zero point's part.

    The kernels of depthwise convolutions add in 32 bits whatever `bits` says.
    """
    kernel = (w.shape[2], w.shape[3])
    taken = patches(x, kernel, strides=strides, pads=pads, dilations=dilations, fill=zero)
    is_depthwise = groups == len(w) > 1 and w.shape[1] == 1
    inner, outer = x.shape[1] // groups, len(w) // groups
    parts = []
    for g in range(groups):
        rows = taken[..., g * inner : (g + 1) * inner]
        weights = np.moveaxis(w[g * outer : (g + 1) * outer], 1, -1).reshape(outer, -1)
        flat = rows.reshape(*rows.shape[:3], -1)
        parts.append(summed(flat, weights, bits=32 if is_depthwise else bits))
    values = np.concatenate([part.values for part in parts], axis=-1)
    values = values - zero * w.reshape(len(w), -1).astype(np.int64).sum(axis=1)
    return Sums(np.moveaxis(values, -1, 1), sum(part.clamped for part in parts))


def requantized(
    sums: NDArray[np.int64], scale: NDArray[np.float32], *, zero: int, kind: type[np.integer]
) -> NDArray[np.integer]:
    """Return sums [..., N] times float32 scales [N], rounded to even and clamped to a type."""
    limits = np.iinfo(kind)
    scaled = sums.astype(np.float32) * scale
    inside = np.clip(scaled, np.float32(limits.min - zero), np.float32(limits.max - zero))
    return (np.rint(inside).astype(np.int64) + zero).astype(kind)
