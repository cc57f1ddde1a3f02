"""What training does to a picture: a box, a mirror image, a turn, other colours.

The pixels are torchvision's (transforms v2, on Pillow images: no torch threads inside our own), the numbers come from the caller's
generator: torchvision's random classes draw from one global state, and then the pixels would depend on which thread came first.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from finedge.preprocess import preprocess, resized
from finedge.spec import Preprocess
from finedge.train.recipe import Recipe

Frame = NDArray[np.uint8]

TRIES = 10  # for a random box that fits the image
RATIO = (3 / 4, 4 / 3)  # width to height of a random box


def augment(
    frame: Frame, how: Preprocess, *, recipe: Recipe, generator: np.random.Generator
) -> Frame:
    """Cut a random square, resampled as evaluation does; mirror, turn and colour it as the recipe says.

    Takes uint8 [H, W, 3], returns uint8 [crop, crop, 3].
    """
    cut = _pad_crop if recipe.augment == "pad-crop" else _box_crop
    image = Image.fromarray(cut(frame, how, recipe=recipe, generator=generator))
    if recipe.flip and generator.random() < 0.5:
        image = F.horizontal_flip(image)
    if recipe.rotation:
        image = turned(image, float(generator.uniform(-recipe.rotation, recipe.rotation)))
    if recipe.colour_jitter:
        image = recoloured(
            image, generator.uniform(1 - recipe.colour_jitter, 1 + recipe.colour_jitter, 3)
        )
    return np.asarray(image)


def turned(image: Image.Image, degrees: float) -> Image.Image:
    """Turn a square image counter-clockwise about its centre, bilinear; the corners are filled by reflection.

    Reflection rather than black or the mean: a network can read the angle off a border of one colour, and no camera shows one.
    """
    angle = math.radians(degrees)
    margin = math.ceil(image.width / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)) - 1)) + 1
    padded = F.pad(image, [margin], padding_mode="reflect")
    rotated = F.rotate(padded, degrees, interpolation=InterpolationMode.BILINEAR)
    cropped: Image.Image = F.center_crop(rotated, [image.height, image.width])
    return cropped


def recoloured(image: Image.Image, factors: NDArray[np.float64]) -> Image.Image:
    """Scale brightness, contrast and saturation, in this order, by three positive factors; (1, 1, 1) changes nothing."""
    brightness, contrast, saturation = factors.tolist()
    image = F.adjust_brightness(image, brightness)
    image = F.adjust_contrast(image, contrast)
    image = F.adjust_saturation(image, saturation)
    return image


def _pad_crop(
    frame: Frame, how: Preprocess, *, recipe: Recipe, generator: np.random.Generator
) -> Frame:
    # The whole image as evaluation resizes it, a reflected border, a square anywhere in it. `pad` is meant for the recipe's `size`.
    pad = round(recipe.pad * how.crop / recipe.size)
    image = np.pad(resized(frame, how), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    top, left = (int(generator.integers(side - how.crop + 1)) for side in image.shape[:2])
    return image[top : top + how.crop, left : left + how.crop]


def _box_crop(
    frame: Frame, how: Preprocess, *, recipe: Recipe, generator: np.random.Generator
) -> Frame:
    rows, columns = frame.shape[:2]
    height, width = (
        _evaluated_shape(rows, columns, how)
        if recipe.augment == "crop"
        else _random_shape(rows, columns, recipe, generator)
    )
    top, left = (
        int(generator.integers(rows - height + 1)),
        int(generator.integers(columns - width + 1)),
    )
    return preprocess(
        frame[top : top + height, left : left + width], replace(how, resize=how.crop, rule="squash")
    )


def _evaluated_shape(rows: int, columns: int, how: Preprocess) -> tuple[int, int]:
    """Return (height, width), in pixels of the image, of what evaluation cuts out of it."""
    share = how.crop / how.resize
    sides = (rows, columns) if how.rule == "squash" else (min(rows, columns),) * 2
    return max(1, round(share * sides[0])), max(1, round(share * sides[1]))


def _random_shape(
    rows: int, columns: int, recipe: Recipe, generator: np.random.Generator
) -> tuple[int, int]:
    # The "inception" crop: area uniform, ratio uniform in its logarithm; the largest square if no try fits.
    for _ in range(TRIES):
        area = rows * columns * generator.uniform(recipe.min_area, recipe.max_area)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 1 <= height <= rows and 1 <= width <= columns:
            return height, width
    return min(rows, columns), min(rows, columns)
