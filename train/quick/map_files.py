"""The files of the feature cache: float16 arrays in NumPy's format, written whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from finedge.errors import FinedgeError
from finedge.files import new_file
from finedge.progress import progress_bar
from finedge.train.loader import batches, normalise
from finedge.train.quick.map_engine import MapFunction
from finedge.train.quick.views import ViewImages

BATCH = 32


def is_whole(path: Path, *, shape: tuple[int, ...]) -> bool:
    """Tell whether a file holds float16 values of this shape."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return bool(array.shape == shape and array.dtype == np.float16)


@torch.no_grad()
def write_view(
    view: ViewImages,
    compute: MapFunction,
    paths: Mapping[str, Path],
    *,
    workers: int,
    device: torch.device,
) -> None:
    """Write the maps of a view's images, one file for each block of `paths`.

    Args:
        view: its images.
        compute: gives the maps of those blocks, and perhaps of others.
        paths: {block: its file}.
        workers: threads that prepare images.
        device: where `compute` takes them.

    Raises:
        FinedgeError: a value does not fit float16.
    """
    images = view.images
    total = math.ceil(len(images) / BATCH)
    text = f"feature maps, {view.split} view {view.view}"
    with ExitStack() as stack, progress_bar(text, total) as advance:
        files = {block: stack.enter_context(new_file(path)) for block, path in paths.items()}
        for batch in batches(images, range(len(images)), batch_size=BATCH, workers=workers):
            maps = compute(normalise(batch.frames.to(device), images.preprocessing))
            for block, file in files.items():
                _append(file, maps[block], block=block, images=len(images))
            advance(1)


def _append(file: BinaryIO, maps: Tensor, *, block: str, images: int) -> None:
    """Append the maps of a batch; the first one writes the header for all `images`."""
    half = maps.half()
    if not half.isfinite().all():
        raise FinedgeError(
            f"the maps of block {block} hold values above 65504 or NaN",
            expected="values that fit float16",
            fix="train without --quick",
        )
    if file.tell() == 0:
        header = {"descr": "<f2", "fortran_order": False, "shape": (images, *half.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
    file.write(half.contiguous().numpy().tobytes())
