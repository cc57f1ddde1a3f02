"""RandAugment (arXiv 1909.13719): random changes of colour and geometry, all of one magnitude.

torchvision computes the pixels, and the operations and their strengths are those of its RandAugment
(31 magnitudes, 2 operations an image). Its class is not used: it draws from torch's global
generator, and the pixels would depend on which thread of the loader came first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

OPERATIONS = 2  # of an image
LARGEST = 30  # magnitude
Operation = Callable[[Image.Image, float], Image.Image]  # strength -1..1; the sign is random


def rand_augmented(
    image: Image.Image, *, magnitude: int, generator: np.random.Generator
) -> Image.Image:
    """Return the image after two random operations; magnitude 1 to 30."""
    for _ in range(OPERATIONS):
        operation = TABLE[NAMES[int(generator.integers(len(NAMES)))]]
        sign = 1 if generator.random() < 0.5 else -1
        image = operation(image, sign * magnitude / LARGEST)
    return image


def _moved(
    image: Image.Image, *, shear: tuple[float, float] = (0, 0), shift: tuple[float, float] = (0, 0)
) -> Image.Image:
    degrees = [math.degrees(math.atan(part)) for part in shear]
    pixels = [int(part * side) for part, side in zip(shift, image.size, strict=True)]
    moved: Image.Image = F.affine(
        image,
        angle=0.0,
        translate=pixels,
        scale=1.0,
        shear=degrees,
        interpolation=InterpolationMode.BILINEAR,
        center=[0, 0] if any(shear) else None,
    )
    return moved


SHEAR, SHIFT, TURN, COLOUR = 0.3, 150 / 331, 30.0, 0.9  # at magnitude 30
TABLE: dict[str, Operation] = {
    "identity": lambda image, strength: image,
    "shear_x": lambda image, strength: _moved(image, shear=(SHEAR * strength, 0)),
    "shear_y": lambda image, strength: _moved(image, shear=(0, SHEAR * strength)),
    "translate_x": lambda image, strength: _moved(image, shift=(SHIFT * strength, 0)),
    "translate_y": lambda image, strength: _moved(image, shift=(0, SHIFT * strength)),
    "rotate": lambda image, strength: F.rotate(
        image, TURN * strength, interpolation=InterpolationMode.BILINEAR
    ),
    "brightness": lambda image, strength: F.adjust_brightness(image, 1 + COLOUR * strength),
    "saturation": lambda image, strength: F.adjust_saturation(image, 1 + COLOUR * strength),
    "contrast": lambda image, strength: F.adjust_contrast(image, 1 + COLOUR * strength),
    "sharpness": lambda image, strength: F.adjust_sharpness(image, 1 + COLOUR * strength),
    "posterize": lambda image, strength: F.posterize(image, 8 - round(4 * abs(strength))),
    "solarize": lambda image, strength: F.solarize(image, 255 * (1 - abs(strength))),
    "autocontrast": lambda image, strength: F.autocontrast(image),
    "equalize": lambda image, strength: F.equalize(image),
}
NAMES = tuple(TABLE)
