"""Parts of the picture that count (zones), and parts that do not (masks): polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.runtime.find.box import Box

ZONE_FORM = (
    "NAME=x,y,x,y,x,y,... : at least three corners in pixels, or in fractions of the frame "
    "(all at most 1); 1:NAME=... is for the second source only"
)
MAX_CORNER = 1e6  # pixels
MAX_DIGITS = 4  # of the number of a source
MASK_FORM = ZONE_FORM.replace("NAME=", "")


@dataclass(frozen=True)
class Polygon:
    """Corners (x, y) in pixels, or in fractions of the frame where all are at most 1.

    Attributes:
        text: the option as it was written, for error texts.
        corners: at least three.
        name: of a zone; "" for a mask.
        camera: the number of the only source that it is for; None is every source.
    """

    text: str
    corners: tuple[tuple[float, float], ...]
    name: str = ""
    camera: int | None = None

    def pixels(self, height: int, width: int) -> NDArray[np.float32]:
        """Return the corners in pixels of a frame, float32 [N, 2].

        Raises:
            UsageError: a corner is outside the frame.
        """
        fractions = max(max(corner) for corner in self.corners) <= 1
        scale = (width, height) if fractions else (1, 1)
        corners = np.array(self.corners, np.float64) * scale
        if (corners > (width, height)).any():
            raise UsageError(
                f"{self.text} for a frame of {width}x{height}",
                expected="corners inside the frame",
                fix="give corners of this frame's size, or fractions",
            )
        return corners.astype(np.float32)

    def in_fractions(self, height: int, width: int) -> Polygon:
        """Return the polygon with its corners as fractions of a frame of this size.

        Raises:
            UsageError: a corner is outside the frame.
        """
        pixels = self.pixels(height, width).astype(np.float64)
        corners = tuple((x / width, y / height) for x, y in pixels.tolist())
        return replace(self, corners=corners)


@dataclass(frozen=True)
class Areas:
    """The zones and masks of one source."""

    zones: tuple[Polygon, ...] = ()
    masks: tuple[Polygon, ...] = ()

    def of_frame(self, height: int, width: int) -> Areas:
        """Return the same areas in fractions of a frame of this size.

        A camera that changes its resolution later keeps them.

        Raises:
            UsageError: a corner is outside the frame.
        """
        zones, masks = (
            tuple(polygon.in_fractions(height, width) for polygon in kind)
            for kind in (self.zones, self.masks)
        )
        return Areas(zones, masks)

    def kept(self, boxes: Sequence[Box], *, height: int, width: int) -> tuple[Box, ...]:
        """Return the boxes whose middle is in a zone and in no mask, with the zone's name.

        Without zones the whole frame is one without a name. Of several zones the first counts.
        """
        kept = []
        for box in boxes:
            middle = (box.x + box.w / 2, box.y + box.h / 2)
            if any(_holds(mask.pixels(height, width), middle) for mask in self.masks):
                continue
            zone = self._zone_at(middle, height=height, width=width)
            if zone is not None:
                kept.append(replace(box, zone=zone))
        return tuple(kept)

    def masked(self, height: int, width: int) -> NDArray[np.uint8] | None:
        """Return uint8 [height, width], 255 where a mask is; None without masks."""
        if not self.masks:
            return None
        image = np.zeros((height, width), np.uint8)
        for mask in self.masks:
            cv2.fillPoly(image, [np.rint(mask.pixels(height, width)).astype(np.int32)], 255)
        return image

    def _zone_at(self, middle: tuple[float, float], *, height: int, width: int) -> str | None:
        if not self.zones:
            return ""
        for zone in self.zones:
            if _holds(zone.pixels(height, width), middle):
                return zone.name
        return None


def areas_of(zones: Sequence[str], masks: Sequence[str], *, camera: int) -> Areas:
    """Return the areas of source number `camera`.

    Raises:
        UsageError: a zone or a mask that cannot be read.
    """
    polygons = [parse_zone(text) for text in zones], [parse_mask(text) for text in masks]
    own_zones, own_masks = (
        tuple(polygon for polygon in kind if polygon.camera in (None, camera)) for kind in polygons
    )
    return Areas(own_zones, own_masks)


def parse_zone(text: str) -> Polygon:
    """Read `NAME=x,y,...` or `CAMERA:NAME=x,y,...`.

    Raises:
        UsageError: it is not of this form.
    """
    option = f"--zone {text}"
    left, equals, corners = text.partition("=")
    number, colon, name = left.partition(":")
    if not colon:
        number, name = "", left
    if not equals or not name.strip():
        raise UsageError(option, expected=ZONE_FORM)
    found = _corners(corners, option, ZONE_FORM)
    return Polygon(option, found, name.strip(), _camera(number, option))


def parse_mask(text: str) -> Polygon:
    """Read `x,y,...` or `CAMERA:x,y,...`.

    Raises:
        UsageError: it is not of this form.
    """
    option = f"--mask {text}"
    number, colon, corners = text.rpartition(":")
    camera = _camera(number, option) if colon else None
    return Polygon(option, _corners(corners, option, MASK_FORM), camera=camera)


def _corners(text: str, option: str, form: str) -> tuple[tuple[float, float], ...]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(option, expected=form) from None
    good = all(0 <= number <= MAX_CORNER for number in numbers)  # not NaN
    if not good or len(numbers) < 6 or len(numbers) % 2:
        raise UsageError(option, expected=f"pairs of numbers, 0 or more. {form}")
    corners = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    if _crosses_itself(corners):
        raise UsageError(option, expected="the corners in their order around the area")
    if cv2.contourArea(np.array(corners, np.float32)) <= 0:
        raise UsageError(option, expected=f"corners around an area. {form}")
    return corners


def _crosses_itself(corners: Sequence[tuple[float, float]]) -> bool:
    """Tell whether two edges cross; edges that touch do not."""
    edges = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    return any(_cross(*one, *other) for one, other in combinations(edges, 2))


def _cross(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]
) -> bool:
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(a: tuple[float, float], b: tuple[float, float], point: tuple[float, float]) -> float:
    """Return on which side of a line through two points another one is: below, above or at 0."""
    return (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])


def _camera(number: str, option: str) -> int | None:
    if not number:
        return None
    if not number.isdecimal() or len(number) > MAX_DIGITS:
        raise UsageError(
            option, expected="CAMERA: is the place of a source on the command line, from 0"
        )
    return int(number)


def _holds(corners: NDArray[np.float32], point: tuple[float, float]) -> bool:
    return cv2.pointPolygonTest(corners, point, measureDist=False) >= 0
