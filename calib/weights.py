"""Weights in INT8: symmetric, one scale an output channel, which axis 0 is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finedge.calib.ranges import INT8_MAX


def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 values in [-127, 127], shaped like `weight` [out, ...], and float32 scales [out]: weight ~ values * scales.

    A channel of zeros (pruned) gets scale 1.
    """
    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float32) / np.float32(
        INT8_MAX
    )
    scales[scales == 0] = 1
    steps = weight / scales.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(steps), -INT8_MAX, INT8_MAX).astype(np.int8), scales
