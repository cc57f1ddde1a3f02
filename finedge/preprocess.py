"""Turns a frame into the network's input.

Training, calibration, evaluation and the camera call the same function.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finedge.antialias import Axis, antialias, centred
from finedge.errors import UsageError
from finedge.spec import Preprocess

ANTIALIAS = "cv2-antialias"
PILLOW = {"pillow-bilinear": Image.Resampling.BILINEAR, "pillow-bicubic": Image.Resampling.BICUBIC}
# INTER_LINEAR_EXACT, because INTER_LINEAR computes differently on ARM (measured: up to 2 grey
# levels apart). It costs 0.5 ms more on 1280 x 720.
CV2 = {"cv2-area": cv2.INTER_AREA, "cv2-linear": cv2.INTER_LINEAR_EXACT}

# Pillow's filters need up to 2 output pixels (bicubic) around the crop, and they read nothing
# outside `box=`. A margin of 4 output pixels gives the pixels of a whole-image resize, within 1
# grey level, in half the time.
MARGIN = 4


def preprocess(
    frame: NDArray[np.uint8], config: Preprocess, *, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resize and centre-crop one frame.

    Args:
        frame: uint8 [H, W, 3], RGB, any size.
        config: the bundle's preprocessing. Its mean and std are applied in the graph, not here.
        out: where to write the result, for example a row of a batch: uint8, C-contiguous, of the
            shape of the result. The method `cv2-antialias` makes no other copy of the crop.

    Returns:
        uint8 [crop, crop, 3], RGB, C-contiguous; or a frame of the size `config.frame`, where the
        graph resizes. It is `out` where that is given.

    The size follows torchvision: the short side becomes `resize`, the long side
    int(resize * long / short).

    Raises:
        UsageError: `out` has another shape or type.

    Examples:
        >>> frame = np.zeros((480, 640, 3), np.uint8)
        >>> preprocess(frame, Preprocess(resize=256, crop=224)).shape
        (224, 224, 3)
    """
    if out is not None:
        _check_out(out, input_size(config))
    if config.frame is None and config.method == ANTIALIAS:
        return antialias(frame, crop_axes(frame.shape[0], frame.shape[1], config), out=out)
    image = _crop(frame, config) if config.frame is None else _as_frame(frame, config, config.frame)
    if out is None:
        return np.ascontiguousarray(image)
    out[...] = image
    return out


def preprocess_batch(
    frames: Iterable[NDArray[np.uint8]], config: Preprocess, *, count: int
) -> NDArray[np.uint8]:
    """Return `count` frames as the network's input, uint8 [count, H, W, 3].

    Each is read once, and `cv2-antialias` writes its crop straight into the batch. One frame after
    the other is taken from `frames`, so that a generator of files keeps one picture at a time.
    """
    batch = np.empty((count, *input_size(config), 3), np.uint8)
    for frame, row in zip(frames, batch, strict=True):
        preprocess(frame, config, out=row)
    return batch


def input_size(config: Preprocess) -> tuple[int, int]:
    """Return (height, width) of what `preprocess` returns."""
    return config.frame or (config.crop, config.crop)


def crop_axes(height: int, width: int, config: Preprocess) -> tuple[Axis, Axis]:
    """Return what `cv2-antialias` makes of the rows and columns of a frame."""
    sides, size = (height, width), resized_shape(height, width, config)
    rows, columns = (
        centred(side, config.crop, length=config.crop * side / after)
        for side, after in zip(sides, size, strict=True)
    )
    return rows, columns


def resized(frame: NDArray[np.uint8], config: Preprocess) -> NDArray[np.uint8]:
    """Return the whole frame after the resize and before the crop, uint8 [height, width, 3]."""
    return _scaled(frame, resized_shape(frame.shape[0], frame.shape[1], config), config)


def resized_shape(height: int, width: int, config: Preprocess) -> tuple[int, int]:
    """Return (height, width) after the resize and before the crop."""
    if config.rule == "squash":
        return config.resize, config.resize
    if width <= height:
        return int(config.resize * height / width), config.resize
    return config.resize, int(config.resize * width / height)


def _check_out(out: NDArray[np.uint8], size: tuple[int, int]) -> None:
    if out.shape != (*size, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise UsageError(
            f"out is {out.dtype} {list(out.shape)}",
            expected=f"uint8 {[*size, 3]}, C-contiguous",
        )


def _scaled(
    frame: NDArray[np.uint8], size: tuple[int, int], config: Preprocess
) -> NDArray[np.uint8]:
    if config.method == ANTIALIAS:
        sides = zip(frame.shape[:2], size, strict=True)
        rows, columns = (centred(side, target, length=side) for side, target in sides)
        return antialias(frame, (rows, columns))
    if config.method in CV2:
        return np.asarray(cv2.resize(frame, size[::-1], interpolation=CV2[config.method]), np.uint8)
    return np.asarray(Image.fromarray(frame).resize(size[::-1], PILLOW[config.method]))


def _crop(frame: NDArray[np.uint8], config: Preprocess) -> NDArray[np.uint8]:
    """Return the crop by Pillow, or by one call of OpenCV; a view of a larger picture."""
    height, width = resized_shape(frame.shape[0], frame.shape[1], config)
    top, left = round((height - config.crop) / 2), round((width - config.crop) / 2)
    if config.method in CV2:
        return resized(frame, config)[top : top + config.crop, left : left + config.crop]
    return _pillow_crop(frame, config, (height, width), (top, left))


def _pillow_crop(
    frame: NDArray[np.uint8], config: Preprocess, size: tuple[int, int], corner: tuple[int, int]
) -> NDArray[np.uint8]:
    # Work on the crop plus its margin only, clipped to the image.
    first = [max(0, c - MARGIN) for c in corner]
    last = [min(s, c + config.crop + MARGIN) for s, c in zip(size, corner, strict=True)]
    scale = [frame.shape[axis] / size[axis] for axis in (0, 1)]
    box = (first[1] * scale[1], first[0] * scale[0], last[1] * scale[1], last[0] * scale[0])
    part = Image.fromarray(frame).resize(
        (last[1] - first[1], last[0] - first[0]), PILLOW[config.method], box=box
    )
    y, x = corner[0] - first[0], corner[1] - first[1]
    return np.asarray(part)[y : y + config.crop, x : x + config.crop]


def _as_frame(
    frame: NDArray[np.uint8], config: Preprocess, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return a frame of the size that the graph takes.

    A frame of that size is returned as it is. Any other picture is placed in one, so that the graph
    crops what `preprocess` would crop.
    """
    if frame.shape[:2] == size:
        return frame
    if config.rule == "squash":
        return _scaled(frame, size, config)
    side = min(size)  # the crop never leaves the centre square
    square = preprocess(frame, replace(config, frame=None, resize=side, crop=side))
    before = [(length - side) // 2 for length in size]
    return np.pad(
        square,
        [(b, length - side - b) for b, length in zip(before, size, strict=True)] + [(0, 0)],
        mode="edge",
    )
