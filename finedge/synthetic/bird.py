"""Draws one bird: outlines in bird units, a pose, a plumage, and the marks of its species."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.synthetic.pen import Pen, Points, arc, bend, smooth, turned
from finedge.synthetic.species import DARK, PALE, Colour, Species

LENGTH = 1.6  # bill to tail in bird units, about
NECK, RUMP = (0.27, -0.20), (-0.36, 0.06)

_MIDDLE_TO_ORIGIN = np.array([[1, 0, 0.13], [0, 1, -0.02], [0, 0, 1.0]])
_HEAD_AT = np.array([0.36, -0.33])
_BODY = smooth(
    [
        (0.44, -0.2),
        (0.47, 0.02),
        (0.33, 0.21),
        (0.06, 0.29),
        (-0.22, 0.22),
        (-0.42, 0.08),
        (-0.38, -0.02),
        (-0.12, -0.17),
        (0.14, -0.33),
        (0.32, -0.36),
    ]
)
_BELLY = smooth(
    [
        (0.44, -0.10),
        (0.44, 0.05),
        (0.32, 0.20),
        (0.06, 0.28),
        (-0.20, 0.21),
        (-0.36, 0.12),
        (-0.10, 0.12),
        (0.18, 0.08),
        (0.33, -0.04),
    ]
)
_WING = smooth(
    [
        (0.24, -0.14),
        (0.20, 0.02),
        (0.02, 0.10),
        (-0.24, 0.12),
        (-0.52, 0.12),
        (-0.34, 0.00),
        (-0.06, -0.14),
        (0.12, -0.20),
    ]
)
_FEATHERS = tuple(
    bend((0.02 - 0.05 * i, -0.07 + 0.035 * i), (-0.15, 0.03 + 0.02 * i), (-0.40, 0.08 + 0.008 * i))
    for i in range(3)
)
_BARS = (
    bend((0.16, -0.15), (0.08, -0.06), (0.11, 0.06)),
    bend((0.03, -0.14), (-0.05, -0.04), (-0.02, 0.10)),
)
_HOOD = smooth(
    [
        (0.19, 0.03),
        (0.15, 0.22),
        (-0.05, 0.27),
        (-0.25, 0.20),
        (-0.22, 0.05),
        (-0.10, -0.15),
        (0.10, -0.15),
    ]
)
_CAP = np.concatenate([arc(205, 325) * 0.199, [(0.08, -0.10), (-0.06, -0.10)]])
_THROAT = np.concatenate([arc(15, 95) * 0.199, [(0.04, 0.09)]])
_BREAST = (
    (0.37, -0.06),
    (0.42, 0.03),
    (0.33, 0.04),
    (0.36, 0.13),
    (0.27, 0.12),
    (0.27, 0.20),
    (0.18, 0.16),
    (0.16, 0.24),
    (0.07, 0.20),
)


@dataclass(frozen=True)
class Pose:
    """Where and how the bird stands.

    Attributes:
        centre: Middle of the bird, in fractions of the frame's (width, height).
        span: Bill to tail as a fraction of the frame's shorter side.
        mirror: The bird looks to the left.
        roll, head, tail: Turn of the bird, of its head and of its tail, in degrees.
        squeeze: Width seen from an angle, as a fraction of the full one.
        shear: Sideways shift per unit of height.
        tilt: Perspective (x, y): relative change of scale per bird unit.
    """

    centre: tuple[float, float]
    span: float
    mirror: bool = False
    roll: float = 0.0
    head: float = 0.0
    tail: float = 0.0
    squeeze: float = 1.0
    shear: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)

    def matrix(self, *, width: int, height: int) -> NDArray[np.float64]:
        """Return the homography from bird units to pixels."""
        scale = self.span * min(width, height) / LENGTH
        across = -self.squeeze if self.mirror else self.squeeze
        place = np.array(
            [[scale, 0, self.centre[0] * width], [0, scale, self.centre[1] * height], [0, 0, 1.0]]
        )
        view = np.array([[across, self.shear, 0], [0, 1, 0], [*self.tilt, 1.0]]) @ _MIDDLE_TO_ORIGIN
        matrix: NDArray[np.float64] = place @ turned(self.roll) @ view
        return matrix

    def feet(self, *, width: int, height: int) -> tuple[float, float]:
        """Return the pixel (x, y) between the feet."""
        x, y, w = self.matrix(width=width, height=height) @ (0.04, 0.46, 1.0)
        return float(x / w), float(y / w)


@dataclass(frozen=True)
class Plumage:
    """Colours of one individual, RGB; every species draws them from the same distribution."""

    back: Colour
    belly: Colour
    wing: Colour
    head: Colour


def draw_bird(
    species: Species, *, pose: Pose, plumage: Plumage, width: int, height: int
) -> NDArray[np.uint8]:
    """Return the bird as a layer, uint8 [height, width, 4]: RGB premultiplied with alpha."""
    layer = np.zeros((height, width, 4), np.uint8)
    pen = Pen(layer, pose.matrix(width=width, height=height))
    _legs(pen, species)
    _tail(pen.moved(turned(pose.tail, about=RUMP)), species, plumage)
    joint = turned(pose.head, about=NECK)
    joint[:2, 2] += joint[:2, :2] @ _HEAD_AT
    pen.fill(_BODY, plumage.back)
    pen.moved(joint).fill(_HOOD, plumage.head)
    pen.fill(_BELLY, plumage.belly)
    _breast(pen, species)
    _wing(pen, species, plumage)
    _head(pen.moved(joint), species, plumage)
    return _rounded(layer, radius=pose.span * min(width, height) * 0.09)


def _legs(pen: Pen, species: Species) -> None:
    for x in (-0.02, 0.10):
        pen.stroke(
            np.array([(x, 0.22), (x + 0.03, 0.36), (x - 0.01, 0.46)]), species.legs, width=0.03
        )
        pen.stroke(
            np.array([(x - 0.06, 0.47), (x + 0.02, 0.45), (x + 0.09, 0.47)]),
            species.legs,
            width=0.025,
        )


def _tail(pen: Pen, species: Species, plumage: Plumage) -> None:
    end, drop = -0.36 - species.tail_length, 0.22 * species.tail_length
    notch = np.array((end, drop + 0.055)) + species.tail_fork * np.array(
        (species.tail_length, 0.01 - drop)
    )
    spread = 0.08 * species.tail_fork
    pen.fill(
        np.array(
            [
                (-0.30, -0.01),
                (end, drop - 0.03 - spread),
                notch,
                (end, drop + 0.14 + spread),
                (-0.30, 0.14),
            ]
        ),
        plumage.wing,
    )
    pen.stroke(np.array([(-0.36, 0.065), notch]), _darker(plumage.wing, 0.7), width=0.012)
    if species.tail_band:
        pen.stroke(
            np.array([(end + 0.12, drop - 0.04), (end + 0.13, drop + 0.12)]), DARK, width=0.07
        )


def _breast(pen: Pen, species: Species) -> None:
    for x, y in _BREAST if species.breast != "plain" else ():
        if species.breast == "spots":
            pen.disc((x, y), 0.024, DARK)
        else:
            pen.stroke(np.array([(x + 0.02, y - 0.042), (x - 0.02, y + 0.042)]), DARK, width=0.02)


def _wing(pen: Pen, species: Species, plumage: Plumage) -> None:
    pen.fill(_WING, plumage.wing)
    for line in _FEATHERS:
        pen.stroke(line, _darker(plumage.wing, 0.7), width=0.014)
    for line in _BARS[: species.wing_bars]:
        pen.stroke(line, PALE, width=0.042)


def _head(pen: Pen, species: Species, plumage: Plumage) -> None:
    """Draw the head about its centre (0, 0), looking to the right."""
    _bill(pen, species)
    pen.disc((0.0, 0.0), 0.2, plumage.head)
    if species.cap:
        pen.fill(_CAP, species.cap)
    if species.throat:
        pen.fill(_THROAT, species.throat)
    if species.brow:
        pen.stroke(bend((-0.11, -0.05), (0.03, -0.12), (0.17, -0.07)), PALE, width=0.045)
    if species.eye_line:
        pen.stroke(bend((-0.13, 0.0), (0.05, -0.05), (0.19, -0.01)), DARK, width=0.05)
    if species.eye_ring:
        pen.disc((0.07, -0.03), 0.068, PALE)
    pen.disc((0.07, -0.03), 0.034, (14, 12, 12))
    pen.disc((0.08, -0.041), 0.010, (235, 235, 235))


def _bill(pen: Pen, species: Species) -> None:
    half, tip = species.bill_depth / 2, (0.19 + species.bill_length, 0.02 + species.bill_curve)
    middle = 0.17 + species.bill_length * 0.6
    upper = bend((0.15, 0.02 - half), (middle, 0.02 - half * 0.8), tip)
    lower = bend(tip, (middle, 0.02 + half * 0.6), (0.15, 0.02 + half))
    pen.fill(np.concatenate([upper, lower]), species.bill)
    pen.stroke(bend((0.15, 0.02), (middle, 0.02), tip), _darker(species.bill, 0.6), width=0.010)


def _rounded(layer: NDArray[np.uint8], *, radius: float) -> NDArray[np.uint8]:
    """Darken towards the lower edge, as on a round body lit from above."""
    side = int(radius) | 1
    alpha = layer[:, :, 3]
    inside = cv2.blur(cv2.blur(alpha, (side, side)), (side, side))
    lit = cv2.warpAffine(inside, np.array([[1, 0, 0], [0, 1, -0.6 * radius]]), inside.shape[::-1])
    shade = cv2.addWeighted(inside, 0.15, lit, 0.27, 150)
    return cv2.multiply(
        layer, cv2.merge([shade, shade, shade, np.full_like(shade, 255)]), scale=1 / 255
    )  # type: ignore[return-value]


def _darker(colour: Colour, factor: float) -> Points:
    return np.asarray(colour) * factor
