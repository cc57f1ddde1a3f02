"""The one function that turns a frame into the network's input: training, calibration, evaluation, camera."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finedge.spec import Preprocess

PILLOW = {"pillow-bilinear": Image.Resampling.BILINEAR, "pillow-bicubic": Image.Resampling.BICUBIC}
# The exact form: INTER_LINEAR itself is other arithmetic on ARM (up to 2 grey levels apart, measured); this one costs 0.5 ms more on 1280 x 720.
CV2 = {"cv2-area": cv2.INTER_AREA, "cv2-linear": cv2.INTER_LINEAR_EXACT}

# Pillow's filters read up to 2 output pixels (bicubic) beyond the box, but never outside `box=`: a margin of 4 output
# pixels around the crop gives the pixels of a whole-image resize (within 1 grey level) at half the time.
MARGIN = 4


def preprocess(frame: NDArray[np.uint8], how: Preprocess) -> NDArray[np.uint8]:
    """Resize and centre-crop one frame.

    Args:
        frame: uint8 [H, W, 3], RGB, any size.
        how: the bundle's preprocessing; mean and std are not applied here (they are in the graph).

    Returns:
        uint8 [crop, crop, 3], RGB, C-contiguous; where the graph resizes (`how.frame`), a frame of that size.

    The resized size follows torchvision: the short side becomes `resize`, the long side int(resize * long / short).
    """
    if how.frame is not None:
        return _as_frame(frame, how, how.frame)
    height, width = resized_shape(frame.shape[0], frame.shape[1], how)
    top, left = round((height - how.crop) / 2), round((width - how.crop) / 2)
    if how.method in CV2:
        whole = resized(frame, how)
        return np.ascontiguousarray(whole[top : top + how.crop, left : left + how.crop])
    return _pillow_crop(frame, how, (height, width), (top, left))


def resized(frame: NDArray[np.uint8], how: Preprocess) -> NDArray[np.uint8]:
    """Return the whole frame after the resize and before the crop, uint8 [height, width, 3]."""
    return _scaled(frame, resized_shape(frame.shape[0], frame.shape[1], how), how)


def _scaled(frame: NDArray[np.uint8], size: tuple[int, int], how: Preprocess) -> NDArray[np.uint8]:
    if how.method in CV2:
        return np.asarray(cv2.resize(frame, size[::-1], interpolation=CV2[how.method]), np.uint8)
    return np.asarray(Image.fromarray(frame).resize(size[::-1], PILLOW[how.method]))


def resized_shape(height: int, width: int, how: Preprocess) -> tuple[int, int]:
    """Return (height, width) after the resize and before the crop."""
    if how.rule == "squash":
        return how.resize, how.resize
    if width <= height:
        return int(how.resize * height / width), how.resize
    return how.resize, int(how.resize * width / height)


def _pillow_crop(
    frame: NDArray[np.uint8], how: Preprocess, size: tuple[int, int], corner: tuple[int, int]
) -> NDArray[np.uint8]:
    # Work on the crop plus its margin only, clipped to the image.
    first = [max(0, c - MARGIN) for c in corner]
    last = [min(s, c + how.crop + MARGIN) for s, c in zip(size, corner, strict=True)]
    scale = [frame.shape[axis] / size[axis] for axis in (0, 1)]
    box = (first[1] * scale[1], first[0] * scale[0], last[1] * scale[1], last[0] * scale[0])
    part = Image.fromarray(frame).resize(
        (last[1] - first[1], last[0] - first[0]), PILLOW[how.method], box=box
    )
    y, x = corner[0] - first[0], corner[1] - first[1]
    return np.ascontiguousarray(np.asarray(part)[y : y + how.crop, x : x + how.crop])


def _as_frame(
    frame: NDArray[np.uint8], how: Preprocess, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return a frame of the graph's size as it is; another picture is placed so that the graph crops of it what `preprocess` would."""
    if frame.shape[:2] == size:
        return np.ascontiguousarray(frame)
    if how.rule == "squash":
        return np.ascontiguousarray(_scaled(frame, size, how))
    side = min(size)  # the crop never leaves the centre square
    square = preprocess(frame, replace(how, frame=None, resize=side, crop=side))
    before = [(length - side) // 2 for length in size]
    return np.pad(
        square,
        [(b, length - side - b) for b, length in zip(before, size, strict=True)] + [(0, 0)],
        mode="edge",
    )
