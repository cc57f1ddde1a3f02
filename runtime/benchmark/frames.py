"""The frames that a benchmark rotates: images of the split, or rendered scenes without labels."""

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
from finedge.data import EvaluationSplit, Item
from finedge.errors import DataError
from finedge.image import decode_image
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images, recorded_root

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]
FIRST_VISIT_S = 6.0  # of the rendered garden: nothing comes before
MEMORY_BYTES = 512 * 2**20  # decoded frames kept at once; of large photos fewer are rotated


@dataclass(frozen=True)
class Frames:
    """Decoded frames in the order in which they are asked for.

    Attributes:
        frames: uint8 [H, W, 3] RGB each.
        decode_ms: the decoding time of each image; empty for rendered scenes.
        source: where they are from, in words.
    """

    frames: tuple[Frame, ...]
    decode_ms: tuple[float, ...]
    source: str


def labelled_images(bundle: Bundle, options: SplitOptions) -> EvaluationSplit | None:
    """Return the readable images of a split, or None where there is no labelled data.

    The data are those of `options`, or those that the bundle was trained on if they are on this
    machine.

    Raises:
        DataError: the labels of the data are not those of the bundle, the split has no image, or
            one that was trained on.
    """
    recorded = recorded_root(bundle)
    if options.data is None and not (recorded and recorded.is_dir()):
        return None
    return evaluated_images(bundle, options)


def image_frames(items: Sequence[Item], *, count: int, split: str) -> Frames:
    """Decode up to `count` images, shuffled by a fixed seed, and time each decoding from memory.

    Raises:
        DataError: an image is not complete.
    """
    chosen = random.Random(0).sample(list(items), min(count, len(items)))
    frames: list[Frame] = []
    times: list[float] = []
    for item in chosen:
        frame, ms = _decoded(item.path)
        frames.append(frame)
        times.append(ms)
        if sum(f.nbytes for f in frames) > MEMORY_BYTES:
            text = "the images are large: %d of them are rotated, not %d"
            log.warning(text, len(frames), len(chosen))
            break
    return Frames(tuple(frames), tuple(times), f"images of the {split} split")


def _decoded(path: Path) -> tuple[Frame, float]:
    """Return a frame, and the milliseconds that its decoding from bytes in memory took."""
    data = np.fromfile(path, dtype=np.uint8)
    start = time.perf_counter()
    frame = decode_image(data)
    ms = 1e3 * (time.perf_counter() - start)
    if frame is None:
        raise DataError(f"{path} is not a complete image", fix="repair or delete this file")
    return frame, ms


def rendered_frames(count: int) -> Frames:
    """Render scenes: real work for the preprocessing and the model, but no labels."""
    from finedge.synthetic.scene import moving_scene

    # Every 7th frame of the movement, so that neighbours differ.
    return Frames(tuple(moving_scene(7 * i, seed=0) for i in range(count)), (), "rendered scenes")


def garden_frames(birds: int, *, count: int, fps: float) -> Frames:
    """Render a garden, uint8 [720, 1280, 3], in which so many birds move; 0 is a still scene.

    Neighbours are `1 / fps` seconds apart. They are at most `count`, and fill `MEMORY_BYTES` at
    most. A still scene differs by the sensor's noise alone: its frames are a second's.
    """
    from finedge.synthetic.flock import Flock

    scene = Flock(birds, seed=1, fps=fps)
    most = MEMORY_BYTES // (scene.width * scene.height * 3)
    count = min(count, most if birds else max(2, round(fps)))
    first = round(FIRST_VISIT_S * fps)
    name = f"a rendered garden of {scene.width} x {scene.height}, "
    name += f"{birds} birds" if birds else "still"
    return Frames(tuple(scene.frame(first + index) for index in range(count)), (), name)
