"""The bird's surroundings, light and camera.

Ground, foliage, twigs, decoys, feather texture, light, lens and sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from finedge.synthetic.pen import Pen, bend, turned
from finedge.synthetic.species import DARK, PALE, RED, YELLOW

Image = NDArray[np.uint8]  # [H, W, 3] RGB

_PALETTES = np.array(
    [
        [(66, 96, 48), (134, 158, 82)],  # meadow
        [(34, 58, 40), (88, 120, 70)],  # wood
        [(150, 182, 208), (214, 224, 230)],  # sky
        [(92, 74, 56), (158, 132, 100)],  # bark
        [(140, 88, 44), (206, 160, 80)],  # autumn
        [(88, 108, 118), (150, 168, 172)],  # water
        [(176, 176, 178), (228, 228, 226)],  # snow
        [(40, 40, 46), (96, 92, 92)],  # dusk
    ],
    dtype=float,
)
_DECOYS = (RED, YELLOW, PALE, DARK)
_TILE = 1024
_LEAF = np.concatenate(
    [bend((-0.5, 0), (-0.1, -1), (0.5, 0)), bend((0.5, 0), (-0.1, 1), (-0.5, 0))]
)
_RIB = np.array([(-0.5, -0.03), (0.5, 0.0), (-0.5, 0.03)])


def backdrop(rng: Generator, *, width: int, height: int) -> Image:
    """Return a background.

    It has soft patches of one palette, a texture, foliage out of focus, and decoys in the colours
    of the marks.
    """
    low, high = _PALETTES[rng.integers(len(_PALETTES))]
    mix = rng.uniform(-0.15, 1.15, (*rng.integers(2, 6, 2), 1))
    patches = np.clip(
        low + (high - low) * mix + rng.normal(0, 12, (*mix.shape[:2], 3)), 0, 255
    ).astype(np.uint8)
    half = cv2.resize(patches, (width // 2, height // 2), interpolation=cv2.INTER_CUBIC)
    # Drawn at half size: out of focus.
    pen = Pen(half, np.diag([half.shape[0], half.shape[0], 1.0]))
    ratio = width / height
    for _ in range(rng.integers(0, 22)):
        _leaf(
            pen,
            rng,
            at=(rng.uniform(0, ratio), rng.uniform(0, 1)),
            length=rng.uniform(0.08, 0.3),
            colour=_tone(rng, low, high),
        )
    image: Image = cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    _textured(image, rng)
    _decoys(Pen(image, np.diag([height, height, 1.0])), rng, ratio=ratio)
    return image


def perch(image: Image, rng: Generator, *, at: tuple[float, float]) -> None:
    """Draw a branch through the pixel `at`, where the feet are."""
    height, width = image.shape[:2]
    slope, thick = rng.uniform(-0.25, 0.25), rng.uniform(0.018, 0.05)
    reach = 1.2 * width / height
    x, y = at[0] / height, at[1] / height + thick / 2
    colour = rng.uniform(0.6, 1.3) * np.array([96, 74, 56.0])
    pen = Pen(image, np.diag([height, height, 1.0]))
    line = bend(
        (x - reach, y - slope * reach),
        (x, y + rng.uniform(-0.02, 0.02)),
        (x + reach, y + slope * reach),
    )
    pen.stroke(line, np.clip(colour, 0, 255), width=thick)
    pen.stroke(line - (0, thick * 0.2), np.clip(colour * 1.3, 0, 255), width=thick * 0.3)


def clutter(image: Image, rng: Generator) -> None:
    """Draw twigs, leaves and decoys in front of the bird."""
    height, width = image.shape[:2]
    pen, ratio = Pen(image, np.diag([height, height, 1.0])), width / height
    low, high = _PALETTES[rng.choice([0, 1, 4])]
    for _ in range(rng.integers(0, 2)):
        ends = rng.uniform(-0.1, 1.1, (3, 2)) * (ratio, 1)
        pen.stroke(bend(*ends), _tone(rng, low, high) * 0.6, width=rng.uniform(0.006, 0.02))
    for _ in range(rng.integers(0, 5)):
        _leaf(
            pen,
            rng,
            at=(rng.uniform(0, ratio), rng.uniform(0, 1)),
            length=rng.uniform(0.06, 0.2),
            colour=_tone(rng, low, high),
        )
    _decoys(pen, rng, ratio=ratio, max_count=1)


@dataclass(frozen=True)
class Light:
    """One exposure, applied by calling it.

    It has gain, gamma, colour temperature, a smooth fall-off with shadows, lens blur and noise.
    """

    gain: tuple[float, float, float]
    gamma: float
    shade: NDArray[np.uint8]  # [h, w], small: 255 is fully lit
    blur: float  # standard deviation, thousandths of the height
    noise: float  # standard deviation, grey levels
    offset: tuple[int, int]  # of the noise

    @classmethod
    def sample(cls, rng: Generator) -> Light:
        """Draw an exposure."""
        warm, gain = rng.uniform(-0.18, 0.18), rng.uniform(0.75, 1.3)
        shade = np.clip(rng.normal(238, 40, rng.integers(2, 6, 2)), 110, 255).astype(np.uint8)
        gains = (gain * (1 + warm), gain * rng.uniform(0.95, 1.05), gain * (1 - warm))
        return cls(
            gains,
            rng.uniform(0.8, 1.3),
            shade,
            rng.uniform(0, 4),
            rng.uniform(0, 8),
            (int(rng.integers(256)), int(rng.integers(256))),
        )

    def __call__(self, image: Image) -> Image:
        """Return `image` as this exposure shows it."""
        height, width = image.shape[:2]
        y, x = self.offset
        weight = self.noise / 32
        return cv2.addWeighted(
            self.lit(image), 1, _grain()[y : y + height, x : x + width], weight, -128 * weight
        )  # type: ignore[return-value]

    def lit(
        self, image: Image, *, shade: NDArray[np.uint8] | None = None, height: int | None = None
    ) -> Image:
        """Return `image` in this light and through this lens, without the sensor's noise.

        A part of a picture comes with its part of `shade_at` and the height of the whole picture.
        """
        rows, columns = image.shape[:2]
        curve = np.linspace(0, 1, 256)[:, None] ** self.gamma * self.gain
        lit = cv2.LUT(image, np.clip(curve * 255, 0, 255).astype(np.uint8).reshape(1, 256, 3))
        if shade is None:
            shade = self.shade_at(width=columns, height=rows)
        lit = cv2.multiply(lit, cv2.merge([shade] * 3), scale=1 / 255)
        sigma = self.blur * (height or rows) / 1000
        if sigma > 0.25:
            lit = cv2.GaussianBlur(lit, (0, 0), sigma)
        return lit  # type: ignore[return-value]

    def shade_at(self, *, width: int, height: int) -> NDArray[np.uint8]:
        """Return how much light falls on each pixel, uint8 [height, width]: 255 is all of it."""
        size = (width, height)
        return cv2.resize(self.shade, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def feathered(layer: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Return a premultiplied RGBA layer with mottled colours; alpha stays."""
    height, width = layer.shape[:2]
    y, x = rng.integers(0, _TILE // 2, 2)
    mottle = cv2.resize(
        _clouds()[y : y + 160, x : x + 160], (width, height), interpolation=cv2.INTER_LINEAR
    )
    factor = cv2.addWeighted(mottle, -rng.uniform(0.1, 0.5), mottle, 0, 255)
    return cv2.multiply(
        layer, cv2.merge([factor, factor, factor, np.full_like(factor, 255)]), scale=1 / 255
    )  # type: ignore[return-value]


def over(layer: NDArray[np.uint8], image: Image) -> Image:
    """Return `image` with a premultiplied RGBA layer over it."""
    transparency = cv2.bitwise_not(layer[:, :, 3])
    background = cv2.multiply(image, cv2.merge([transparency] * 3), scale=1 / 255)
    return cv2.add(background, layer[:, :, :3])  # type: ignore[return-value]


def _tone(
    rng: Generator, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.clip(low + (high - low) * rng.uniform(-0.3, 1.3) + rng.normal(0, 14, 3), 0, 255)


def _leaf(
    pen: Pen, rng: Generator, *, at: tuple[float, float], length: float, colour: NDArray[np.float64]
) -> None:
    joint = turned(rng.uniform(0, 360)) @ np.diag([length, length * rng.uniform(0.2, 0.45), 1.0])
    joint[:2, 2] = at
    leaf = pen.moved(joint)
    leaf.fill(_LEAF, colour)
    leaf.fill(_RIB, colour * 0.75)


def _decoys(pen: Pen, rng: Generator, *, ratio: float, max_count: int = 4) -> None:
    """Draw berries, rings and dashes as large as the marks: no colour may give a class away."""
    for _ in range(rng.integers(0, max_count + 1)):
        x, y = rng.uniform(0, ratio), rng.uniform(0, 1)
        size, kind = rng.uniform(0.01, 0.03), rng.integers(3)
        colour = np.clip(
            np.array(_DECOYS[rng.integers(len(_DECOYS))]) + rng.normal(0, 20, 3), 0, 255
        )
        if kind == 0:
            pen.disc((x, y), size, colour)
        elif kind == 1:
            pen.disc((x, y), size * 1.3, colour)
            pen.disc((x, y), size * 0.8, (20, 18, 18))
        else:
            dx, dy = rng.normal(0, 2 * size, 2)
            pen.stroke(np.array([(x - dx, y - dy), (x + dx, y + dy)]), colour, width=0.7 * size)


def _textured(image: Image, rng: Generator) -> None:
    height, width = image.shape[:2]
    h, w = rng.integers(40, 480, 2)
    y, x = rng.integers(0, _TILE - 480, 2)
    clouds = cv2.resize(
        _clouds()[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_LINEAR
    )
    weight = rng.uniform(0, 0.35)
    cv2.addWeighted(image, 1, cv2.merge([clouds] * 3), weight, -128 * weight, dst=image)


@lru_cache(maxsize=1)
def _clouds() -> NDArray[np.uint8]:
    """Return noise of several octaves, uint8 [1024, 1024] about 128."""
    rng = np.random.default_rng(7)
    total = np.zeros((_TILE, _TILE), np.float32)
    for side in (16, 32, 64, 128, 256, 512):
        total += cv2.resize(
            rng.normal(0, 22, (side, side)).astype(np.float32),
            (_TILE, _TILE),
            interpolation=cv2.INTER_CUBIC,
        )
    return np.clip(total + 128, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.uint8]:
    """Return white noise with a standard deviation of 32 about 128, uint8 [1024, 1024, 3]."""
    return np.clip(np.random.default_rng(11).normal(128, 32, (_TILE, _TILE, 3)), 0, 255).astype(
        np.uint8
    )
