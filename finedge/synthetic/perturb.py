"""Perturbations for `evaluate --robustness`: pose, deformation and clutter.

Each function takes uint8 [H, W, 3] and a generator. It returns the same shape: a frame that a
camera might have given, before preprocessing. Each has one severity, at which a person still
recognises the object. Lengths are shares of the short side, because preprocessing keeps the centre
square. A warp fills uncovered pixels by reflection: a constant colour would be a cue.

Attend and Rectify (arXiv 1807.07320) claims robustness to clutter and deformation. Its benchmark
is not available here, so these perturbations are this project's own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Perturbation = Callable[[Frame, Generator], Frame]

ROTATION = (15.0, 30.0)  # degrees, to either side
SMALLER = (0.6, 0.8)  # of the object's size
LARGER = (1.15, 1.3)
PERSPECTIVE = 0.2  # largest shift of a corner inwards, along either side of the frame
DEFORMATION = 0.02  # standard deviation of the shift at the knots of a grid
KNOTS = 6  # of that grid, a side
BLOCKS = 8
BLOCK = (0.2, 0.35)  # side of a block
# No block comes nearer to the centre than this, vertically or horizontally.
CLEAR = 0.3
TEXTURE = 64  # pixels, a side


def rotation(frame: Frame, generator: Generator) -> Frame:
    """Turn by 15 to 30 degrees to either side."""
    height, width = frame.shape[:2]
    angle = generator.uniform(*ROTATION) * generator.choice((-1, 1))
    return _affine(frame, cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0))


def scale(frame: Frame, generator: Generator) -> Frame:
    """Scale by 0.6 to 0.8 or, as often, by 1.15 to 1.3. A larger scale would cut the object."""
    height, width = frame.shape[:2]
    factor = generator.uniform(*(SMALLER if generator.random() < 0.5 else LARGER))
    return _affine(frame, cv2.getRotationMatrix2D((width / 2, height / 2), 0.0, factor))


def perspective(frame: Frame, generator: Generator) -> Frame:
    """Look from aside: each corner moves inwards by up to 20 % of the width and of the height."""
    height, width = frame.shape[:2]
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    moved = corners + (1 - 2 * corners) * generator.uniform(0, PERSPECTIVE, (4, 2)).astype(
        np.float32
    )
    size = np.array([width, height], np.float32)
    matrix = cv2.getPerspectiveTransform(corners * size, moved * size)
    return np.asarray(
        cv2.warpPerspective(
            frame,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )


def deformation(frame: Frame, generator: Generator) -> Frame:
    """Bend the picture smoothly.

    The knots of a 6 x 6 grid move by normal steps of 2 % of the short side, cubic between them.
    """
    height, width = frame.shape[:2]
    knots = generator.normal(0, DEFORMATION * min(height, width), (KNOTS, KNOTS, 2)).astype(
        np.float32
    )
    shift = cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(
        cv2.remap(
            frame,
            columns + shift[..., 0],
            rows + shift[..., 1],
            interpolation=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )


def clutter(frame: Frame, generator: Generator) -> Frame:
    """Put 8 tilted blocks of random texture around the middle 60 % of the square.

    A block measures 20 to 35 % of the short side. The middle stays free. An object that reaches
    further is partly covered.
    """
    height, width = frame.shape[:2]
    short, cluttered = min(height, width), frame.copy()
    for _ in range(BLOCKS):
        side = generator.uniform(*BLOCK)
        away = CLEAR + side / 2**0.5  # half the diagonal: however it is tilted
        place = np.array([away * generator.choice((-1, 1)), generator.uniform(-away, away)])
        x, y = np.array([width, height]) / 2 + short * generator.permutation(place)
        turn = cv2.getRotationMatrix2D(
            (TEXTURE / 2, TEXTURE / 2), generator.uniform(0, 90), side * short / TEXTURE
        )
        matrix = turn + np.array([(0, 0, x - TEXTURE / 2), (0, 0, y - TEXTURE / 2)])
        cv2.warpAffine(
            _texture(generator),
            matrix,
            (width, height),
            dst=cluttered,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
    return cluttered


PERTURBATIONS: dict[str, Perturbation] = {
    "rotation": rotation,
    "scale": scale,
    "perspective": perspective,
    "deformation": deformation,
    "clutter": clutter,
}


def perturb(frame: Frame, name: str, *, index: int, seed: int = 0) -> Frame:
    """Apply a perturbation of the registry to image `index`.

    The same name, index and seed always give the same picture.
    """
    return PERTURBATIONS[name](
        frame, np.random.default_rng((seed, zlib.crc32(name.encode()), index))
    )


def robustness(
    clean: Mapping[str, Any], perturbed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what `evaluate --robustness` prints, from `accuracy_record`s of the same images.

    `drop` is the clean top-1 less the perturbed top-1.
    """
    return {
        "clean": dict(clean),
        "robustness": {
            name: {**record, "drop": round(clean["top1"] - record["top1"], 6)}
            for name, record in perturbed.items()
        },
    }


def _affine(frame: Frame, matrix: NDArray[np.integer | np.floating]) -> Frame:
    height, width = frame.shape[:2]
    return np.asarray(
        cv2.warpAffine(
            frame,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )


def _texture(generator: Generator) -> Frame:
    """Return wavy stripes or blotches between two random colours, uint8 [64, 64, 3]."""
    rows, columns = np.mgrid[:TEXTURE, :TEXTURE] / TEXTURE
    knots = generator.normal(0, generator.uniform(0.5, 3), (5, 5)).astype(np.float32)
    angle, waves = generator.uniform(0, np.pi), generator.uniform(0, 8)
    phase = 2 * np.pi * waves * (rows * np.sin(angle) + columns * np.cos(angle)) + cv2.resize(
        knots, (TEXTURE, TEXTURE), interpolation=cv2.INTER_CUBIC
    )
    share = (0.5 + 0.5 * np.sin(phase))[..., None]
    first, second = generator.uniform(0, 255, (2, 3))
    return np.asarray(share * first + (1 - share) * second, np.uint8)
