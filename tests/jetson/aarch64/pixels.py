"""The pixels of each resize method on this machine, to compare with another: pixels.py OUT.npz."""

from __future__ import annotations

import sys
from typing import get_args

import numpy as np

from finedge.preprocess import preprocess
from finedge.spec import Method, Preprocess

METHODS = get_args(Method)
SIZES = ((480, 640), (401, 600), (1080, 1920))


def pixels() -> dict[str, np.ndarray]:
    """Return uint8 [S, 224, 224, 3] a method: noise, the hardest pixels, of each size."""
    frames = [np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    return {
        method: np.stack([preprocess(frame, Preprocess(256, 224, method)) for frame in frames])
        for method in METHODS
    }


if __name__ == "__main__":
    np.savez(sys.argv[1], **pixels())
