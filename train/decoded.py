"""Decoded images kept in memory: `--cache ram`, for sets that fit.

The threads of the loader share them; no image is copied. With several processes each keeps its
own share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finedge.errors import SystemProblem
from finedge.image import read_image

log = logging.getLogger(__name__)

SHARE = 0.5  # of the free memory that images may take; the rest is for training
MEBIBYTE = 1 << 20


class DecodedImages:
    """Reads images as `read_image` does, and keeps each one after its first decoding."""

    def __init__(self) -> None:
        self._images: dict[Path, NDArray[np.uint8]] = {}

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Return the image uint8 [H, W, 3], RGB; it cannot be written to.

        Raises:
            DataError: it cannot be read.
        """
        image = self._images.get(path)
        if image is None:
            image = read_image(path)
            image.flags.writeable = False
            # Two threads may decode the same image at once; one of the equal copies stays.
            image = self._images.setdefault(path, image)
        return image


def decoded_images(paths: Iterable[Path], *, processes: int = 1) -> DecodedImages:
    """Return an empty store for images, after a check that all of them fit the memory.

    Args:
        paths: of all images that will be read.
        processes: on this machine; each has a store of its own.

    Raises:
        SystemProblem: they would take more than half of the free memory.
    """
    size = sum(map(_decoded_bytes, paths)) * processes
    free = free_memory()
    log.info("decoded images: %d MiB of %d MiB free", size // MEBIBYTE, free // MEBIBYTE)
    if size > SHARE * free:
        raise SystemProblem(
            f"--cache ram: {size // MEBIBYTE} MiB of decoded images, and "
            f"{free // MEBIBYTE} MiB of free memory",
            expected=f"at most {SHARE:.0%} of the free memory",
            fix="leave --cache ram out, or make the images smaller",
        )
    return DecodedImages()


def free_memory() -> int:
    """Return the bytes of memory that programs can still take."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _decoded_bytes(path: Path) -> int:
    """Return the bytes of a decoded image, from the head of its file."""
    try:
        with Image.open(path) as image:
            return 3 * image.width * image.height
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0  # the decoder gives the reason later
