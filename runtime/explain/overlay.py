"""A heat map drawn over the crop: its colours, its place, its scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.runtime.explain.grid import Grid
from finedge.runtime.explain.maps import HeatMap, Panel

RgbImage = NDArray[np.uint8]  # [h, w, 3]

COLOURS = cv2.COLORMAP_INFERNO  # perceptually uniform
MIN_SIDE = 320  # pixels of a drawn crop
# The photograph under a heat map is grey, so that every colour is the map's. The hottest place
# still shows the photograph.
OPACITY = 0.7
DIM = 0.85
SHAPE = 0.8  # exponent of strength: low values get some colour, so that an even map looks even
CROWDED = 6.0  # times uniform: on a longer scale "0" and "uniform" would overlap


@dataclass(frozen=True)
class ScaleTick:
    """A mark on the scale: at a share of its length, with its text."""

    at: float
    text: str


def enlarged(pixels: RgbImage) -> RgbImage:
    """Return the crop, enlarged to at least `MIN_SIDE`."""
    side = max(MIN_SIDE, len(pixels))
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def draw(pixels: RgbImage, panel: Panel) -> RgbImage:
    """Return a panel over the crop, square, as large as `enlarged` makes it.

    Several maps become small multiples.
    """
    crop, size = enlarged(pixels), len(pixels)
    if len(panel.maps) == 1:
        drawn = overlay(crop, panel.maps[0], full=panel.full, size=size)
        return _marked(drawn, panel, len(crop) / size)
    columns = math.ceil(math.sqrt(len(panel.maps)))
    side = len(crop) // columns
    sheet = np.full_like(crop, 127)
    inner = side - 1  # a line of grey between two maps
    small = np.asarray(cv2.resize(crop, (inner, inner), interpolation=cv2.INTER_AREA), np.uint8)
    for index, heat in enumerate(panel.maps):
        top, left = (n * side for n in divmod(index, columns))
        drawn = overlay(small, heat, full=panel.full, size=size)
        sheet[top : top + inner, left : left + inner] = drawn
    return sheet


def overlay(crop: RgbImage, heat: HeatMap, *, full: float, size: int) -> RgbImage:
    """Draw a heat map over a crop of any scale; `size` is its side in the network's pixels."""
    values = stretched(heat.values, heat.grid, side=len(crop), size=size)
    strength = np.clip(values / full, 0, 1)[..., None]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None]
    return blended(np.asarray(grey, np.uint8), strength)


def _marked(picture: RgbImage, panel: Panel, zoom: float) -> RgbImage:
    if panel.mark is not None:
        place = (round(panel.mark[0] * zoom), round(panel.mark[1] * zoom))
        for colour, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            cv2.drawMarker(picture, place, colour, cv2.MARKER_CROSS, 18, thickness)
    return picture


def stretched(
    values: NDArray[np.floating], grid: Grid, *, side: int, size: int
) -> NDArray[np.float32]:
    """Interpolate a map at the pixel centres of a square picture; `grid` says where positions lie.

    Linear with smoothed weights. It looks as round as bicubic, which overshoots and moves a peak at
    the edge by a third of a cell.
    """
    pixels = (np.arange(side) + 0.5) * size / side
    x, y = (_smoothed((pixels - axis.first) / axis.step) for axis in (grid.x, grid.y))
    across, down = np.meshgrid(x, y)
    source, border = values.astype(np.float32), cv2.BORDER_REPLICATE
    picture = cv2.remap(source, across, down, cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(picture, np.float32)


def _smoothed(positions: NDArray[np.floating]) -> NDArray[np.float32]:
    """Bend a fraction t between two positions to t^2 (3 - 2 t), which is flat at both."""
    whole = np.floor(positions)
    t = positions - whole
    return np.asarray(whole + t**2 * (3 - 2 * t), np.float32)


def blended(grey: RgbImage, strength: NDArray[np.floating]) -> RgbImage:
    """Lay colours over a grey picture, uint8 [h, w, 1]; `strength` is 0..1, [h, w, 1].

    The stronger the colour, the less of the picture shows through.
    """
    bgr = cv2.applyColorMap(np.round(255 * strength).astype(np.uint8), COLOURS)
    alpha = OPACITY * strength**SHAPE
    return np.round(DIM * (1 - alpha) * grey + alpha * bgr[..., ::-1]).astype(np.uint8)


def colour_bar(width: int, height: int) -> RgbImage:
    """Return the scale, 0 to full, as it looks over mid-grey."""
    strength = np.broadcast_to(np.linspace(0, 1, width)[None, :, None], (height, width, 1))
    return blended(np.full((height, width, 1), 127, np.uint8), strength)


def ticks(panel: Panel) -> tuple[ScaleTick, ...]:
    """Return the marks of the scale: 0, the uniform level if there is one, and full colour."""
    if panel.uniform is None:
        return ScaleTick(0, "0"), ScaleTick(1, f"{panel.full:.3g}")
    factor = panel.full / panel.uniform
    zero = (ScaleTick(0, "0"),) if factor < CROWDED else ()
    return (*zero, ScaleTick(1 / factor, "uniform"), ScaleTick(1, f"{factor:.3g}x"))


def facts(panel: Panel) -> tuple[str, ...]:
    """Return the lines below a panel: its range, its spread, its note."""
    values = np.stack([heat.values for heat in panel.maps])
    spreads = [heat.effective for heat in panel.maps]
    low, high = (float(v) / (panel.uniform or 1) for v in (values.min(), values.max()))
    extent = f"{low:.2f} to {high:.2f}" + (" x uniform" if panel.uniform else "")
    over = f"{min(spreads):.0f}"
    if len(spreads) > 1:
        over += f" to {max(spreads):.0f}"
    spread = f"spread over {over} of {values[0].size} positions"
    return tuple(line for line in (extent, spread, panel.note) if line)
