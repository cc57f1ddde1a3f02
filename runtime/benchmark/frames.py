"""The frames a benchmark rotates: real images of the split, or rendered scenes where there is no labelled data."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.data import Evaluated, Item, NewImages
from finedge.errors import DataError
from finedge.image import decode_image
from finedge.runtime.evaluate.labelled import evaluated_images, recorded_root

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]
MEMORY_BYTES = 512 * 2**20  # decoded frames kept at once; large photos leave fewer to rotate


@dataclass(frozen=True)
class Frames:
    """Decoded frames, uint8 [H, W, 3] RGB, in the order they are asked; `decode_ms` has one time an image, none if rendered."""

    frames: tuple[Frame, ...]
    decode_ms: tuple[float, ...]
    source: str


def labelled_images(
    bundle: Bundle,
    data: Path | None,
    *,
    split: str,
    new_images: NewImages,
    allow_overlap: bool,
) -> Evaluated | None:
    """Return the readable images of a split of `data`, or of the data the bundle was trained on where it lies here, else None.

    Raises:
        DataError: the labels of the data are not those of the bundle, the split has no image, or
            one that was trained on.
    """
    recorded = recorded_root(bundle)
    if data is None and not (recorded and recorded.is_dir()):
        return None
    return evaluated_images(
        bundle,
        data,
        split=split,
        new_images=new_images,
        allow_overlap=allow_overlap,
    )


def image_frames(items: Sequence[Item], *, count: int, split: str) -> Frames:
    """Decode up to `count` of the images, shuffled by a fixed seed, and time each decoding from bytes in memory."""
    chosen = random.Random(0).sample(list(items), min(count, len(items)))
    frames: list[Frame] = []
    times: list[float] = []
    for item in chosen:
        data = np.fromfile(item.path, dtype=np.uint8)
        start = time.perf_counter()
        frame = decode_image(data)
        times.append(1e3 * (time.perf_counter() - start))
        if frame is None:
            raise DataError(
                f"{item.path} is not a complete image", fix="repair or delete this file"
            )
        frames.append(frame)
        if sum(f.nbytes for f in frames) > MEMORY_BYTES:
            log.warning(
                "the images are large: %d of them are rotated, not %d", len(frames), len(chosen)
            )
            break
    return Frames(tuple(frames), tuple(times), f"images of the {split} split")


def rendered_frames(count: int) -> Frames:
    """Render scenes: real work for the preprocessing and the model, but no labels."""
    from finedge.synthetic.scene import moving_scene

    # Every 7th frame of the movement, so that neighbours differ.
    return Frames(tuple(moving_scene(7 * i, seed=0) for i in range(count)), (), "rendered scenes")
