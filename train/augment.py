"""Augmentation of training images: a random box, a mirror image, a rotation, other colours.

torchvision computes the pixels (transforms v2 on Pillow images, so that no torch threads run inside
the threads of the loader). The random numbers come from the caller's generator: torchvision's
random classes draw from one global state, and the pixels would depend on which thread came first.
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
from finedge.train.rand_augment import rand_augmented
from finedge.train.recipe import Recipe

Frame = NDArray[np.uint8]

TRIES = 10  # to draw a random box that fits the image
ERASED_AREA = (0.02, 0.33)  # parts of the image, and height to width: torchvision's defaults
ERASED_RATIO = (0.3, 3.3)
RATIO = (3 / 4, 4 / 3)  # width to height of a random box


def augment(
    frame: Frame, preprocessing: Preprocess, *, recipe: Recipe, generator: np.random.Generator
) -> Frame:
    """Cut a random square, resampled as in evaluation; flip, rotate and recolour it.

    Takes uint8 [H, W, 3], returns uint8 [crop, crop, 3].
    """
    cut = _pad_crop if recipe.augment == "pad-crop" else _box_crop
    image = Image.fromarray(cut(frame, preprocessing, recipe=recipe, generator=generator))
    if recipe.flip and generator.random() < 0.5:
        image = F.horizontal_flip(image)
    if recipe.rotation:
        image = rotated(image, float(generator.uniform(-recipe.rotation, recipe.rotation)))
    if recipe.colour_jitter:
        image = recoloured(
            image, generator.uniform(1 - recipe.colour_jitter, 1 + recipe.colour_jitter, 3)
        )
    if recipe.hue:
        image = F.adjust_hue(image, float(generator.uniform(-recipe.hue, recipe.hue)))
    if recipe.randaugment:
        image = rand_augmented(image, magnitude=recipe.randaugment, generator=generator)
    pixels = np.asarray(image)
    if recipe.random_erasing and generator.random() < recipe.random_erasing:
        pixels = erased(pixels, preprocessing, generator=generator)
    return pixels


def erased(pixels: Frame, preprocessing: Preprocess, *, generator: np.random.Generator) -> Frame:
    """Fill a random box with the mean colour, which is 0 to the network (arXiv 1708.04896)."""
    rows, columns = pixels.shape[:2]
    colour = np.round(255 * np.asarray(preprocessing.mean)).astype(np.uint8)
    for _ in range(TRIES):
        area = rows * columns * generator.uniform(*ERASED_AREA)
        ratio = math.exp(generator.uniform(*np.log(ERASED_RATIO)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= height < rows and 1 <= width < columns:
            top = int(generator.integers(rows - height + 1))
            left = int(generator.integers(columns - width + 1))
            pixels = pixels.copy()
            pixels[top : top + height, left : left + width] = colour
            break
    return pixels


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate a square image counter-clockwise about its centre, bilinear.

    The corners are filled by reflection, not with black or the mean: a network can read the angle
    from a border of one colour, and no camera shows such a border.
    """
    angle = math.radians(degrees)
    margin = math.ceil(image.width / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)) - 1)) + 1
    padded = F.pad(image, [margin], padding_mode="reflect")
    turned = F.rotate(padded, degrees, interpolation=InterpolationMode.BILINEAR)
    cropped: Image.Image = F.center_crop(turned, [image.height, image.width])
    return cropped


def recoloured(image: Image.Image, factors: NDArray[np.float64]) -> Image.Image:
    """Scale brightness, contrast and saturation, in this order, by three positive factors.

    (1, 1, 1) changes nothing.
    """
    brightness, contrast, saturation = factors.tolist()
    image = F.adjust_brightness(image, brightness)
    image = F.adjust_contrast(image, contrast)
    saturated: Image.Image = F.adjust_saturation(image, saturation)
    return saturated


def _pad_crop(
    frame: Frame, preprocessing: Preprocess, *, recipe: Recipe, generator: np.random.Generator
) -> Frame:
    # The whole image as evaluation resizes it, with a reflected border; then a random square of it.
    # `pad` is in pixels at the recipe's `size`.
    pad = round(recipe.pad * preprocessing.crop / recipe.size)
    image = np.pad(resized(frame, preprocessing), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    top, left = (int(generator.integers(side - preprocessing.crop + 1)) for side in image.shape[:2])
    return image[top : top + preprocessing.crop, left : left + preprocessing.crop]


def _box_crop(
    frame: Frame, preprocessing: Preprocess, *, recipe: Recipe, generator: np.random.Generator
) -> Frame:
    rows, columns = frame.shape[:2]
    if recipe.augment == "crop":
        height, width = _evaluated_shape(rows, columns, preprocessing)
    else:
        height, width = _random_shape(rows, columns, recipe, generator)
    top = int(generator.integers(rows - height + 1))
    left = int(generator.integers(columns - width + 1))
    box = frame[top : top + height, left : left + width]
    return preprocess(box, replace(preprocessing, resize=preprocessing.crop, rule="squash"))


def _evaluated_shape(rows: int, columns: int, preprocessing: Preprocess) -> tuple[int, int]:
    """Return (height, width), in pixels of the image, of the box that evaluation cuts."""
    part = preprocessing.crop / preprocessing.resize
    sides = (rows, columns) if preprocessing.rule == "squash" else (min(rows, columns),) * 2
    return max(1, round(part * sides[0])), max(1, round(part * sides[1]))


def _random_shape(
    rows: int, columns: int, recipe: Recipe, generator: np.random.Generator
) -> tuple[int, int]:
    # The "inception" crop: area uniform, aspect ratio uniform in its logarithm. If no try fits, the
    # largest square.
    for _ in range(TRIES):
        area = rows * columns * generator.uniform(recipe.min_area, recipe.max_area)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 1 <= height <= rows and 1 <= width <= columns:
            return height, width
    return min(rows, columns), min(rows, columns)
