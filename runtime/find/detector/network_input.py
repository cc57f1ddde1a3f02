"""A frame as a detector's network wants it, and back from its boxes to the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

GREY = 114  # of the border, as YOLOv5 and YOLOX fill it
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Fit = Literal["stretch", "letterbox", "corner"]


@dataclass(frozen=True)
class InputRule:
    """What a family does with a frame.

    Attributes:
        fit: `stretch` to the network's size; or keep the ratio, with a grey border on both sides
            (`letterbox`), or on the right and below (`corner`).
        divisor: of the pixels; before `mean` and `std`.
        bgr: the order of the channels.
        mean: of each channel.
        std: of each channel.
    """

    fit: Fit = "stretch"
    divisor: float = 255.0
    bgr: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Placement:
    """Where a frame is in the network's input: pixel x of the frame is at x * scale_x + left."""

    scale_x: float
    scale_y: float
    left: float = 0.0
    top: float = 0.0

    def to_frame(self, corners: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return boxes [N, 4] (left, top, right, bottom) of the input in pixels of the frame."""
        shift = np.array([self.left, self.top, self.left, self.top])
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return np.asarray((corners - shift) / scale, np.float64)


def fit_frame(
    image: NDArray[np.uint8], *, height: int, width: int, fit: Fit
) -> tuple[NDArray[np.uint8], Placement]:
    """Return a frame at the network's size, uint8 [height, width, 3], and where it is there."""
    rows, columns = image.shape[:2]
    if fit == "stretch":
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return small, Placement(width / columns, height / rows)  # type: ignore[return-value]
    scale = min(height / rows, width / columns)
    inner = max(1, round(columns * scale)), max(1, round(rows * scale))
    small = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
    spare_x, spare_y = width - inner[0], height - inner[1]
    left, top = (spare_x // 2, spare_y // 2) if fit == "letterbox" else (0, 0)
    canvas = np.full((height, width, 3), GREY, np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return canvas, Placement(inner[0] / columns, inner[1] / rows, left, top)


def scaled(
    pixels: NDArray[np.uint8], rule: InputRule, *, dtype: type[np.generic] = np.float32
) -> NDArray[np.generic]:
    """Return pixels uint8 [H, W, 3] RGB as the network wants their values, [H, W, 3] of `dtype`.

    A network that takes uint8 scales them itself.
    """
    if rule.bgr:
        pixels = pixels[:, :, ::-1]
    if dtype is np.uint8:
        return pixels
    values = pixels.astype(np.float32)
    factor = 1 / (rule.divisor * np.array(rule.std, np.float32))
    shift = np.array(rule.mean, np.float32) / np.array(rule.std, np.float32)
    return np.asarray(values * factor - shift, np.float32).astype(dtype)
