"""A heat map drawn over the crop: its colours, its place, its scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.runtime.explain.grid import Grid
from finedge.runtime.explain.maps import HeatMap, Panel

Picture = NDArray[np.uint8]

COLOURS = cv2.COLORMAP_INFERNO  # perceptually uniform
MIN_SIDE = 320  # pixels of a drawn crop
# The photograph under a heat map is grey, so that every colour is the map's, and the hottest place still shows what is there.
OPACITY = 0.7
DIM = 0.85
SHAPE = 0.8  # of opacity over strength: a little of the colour at low values, so that an even map is seen to be even
CROWDED = 6.0  # times uniform: on a longer scale "0" and "uniform" would stand on each other


@dataclass(frozen=True)
class Tick:
    """A mark on the scale: at a share of its length, with its text."""

    at: float
    text: str


def enlarged(pixels: Picture) -> Picture:
    """Return the crop, enlarged to at least `MIN_SIDE`."""
    side = max(MIN_SIDE, len(pixels))
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def draw(pixels: Picture, panel: Panel) -> Picture:
    """Return a panel over the crop, square, as large as `enlarged` makes it; several maps are small multiples."""
    crop = enlarged(pixels)
    if len(panel.maps) == 1:
        return _marked(
            overlay(crop, panel.maps[0], full=panel.full, size=len(pixels)),
            panel,
            len(crop) / len(pixels),
        )
    columns = math.ceil(math.sqrt(len(panel.maps)))
    side = len(crop) // columns
    sheet = np.full_like(crop, 127)
    small = np.asarray(
        cv2.resize(crop, (side - 1, side - 1), interpolation=cv2.INTER_AREA), np.uint8
    )
    for index, heat in enumerate(panel.maps):
        top, left = (n * side for n in divmod(index, columns))
        sheet[top : top + side - 1, left : left + side - 1] = overlay(
            small, heat, full=panel.full, size=len(pixels)
        )
    return sheet


def overlay(crop: Picture, heat: HeatMap, *, full: float, size: int) -> Picture:
    """Draw a heat map over a crop of any scale; `size` is the crop's side in the network's pixels."""
    strength = np.clip(stretched(heat.values, heat.grid, side=len(crop), size=size) / full, 0, 1)[
        ..., None
    ]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None]
    return blended(np.asarray(grey, np.uint8), strength)


def _marked(picture: Picture, panel: Panel, zoom: float) -> Picture:
    if panel.mark is not None:
        place = (round(panel.mark[0] * zoom), round(panel.mark[1] * zoom))
        for colour, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            cv2.drawMarker(picture, place, colour, cv2.MARKER_CROSS, 18, thickness)
    return picture


def stretched(
    values: NDArray[np.floating], grid: Grid, *, side: int, size: int
) -> NDArray[np.float32]:
    """Interpolate a map at the pixel centres of a square picture, each position where the grid says it is centred.

    Linear with smoothed weights: as round as bicubic, which however overshoots and moves a peak at the edge by a third of a cell.
    """
    pixels = (np.arange(side) + 0.5) * size / side
    x, y = (_smoothed((pixels - line.first) / line.step) for line in (grid.x, grid.y))
    across, down = np.meshgrid(x, y)
    found = cv2.remap(
        values.astype(np.float32), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found, np.float32)


def _smoothed(positions: NDArray[np.floating]) -> NDArray[np.float32]:
    """Bend a fraction t between two positions to t^2 (3 - 2 t), which is flat at both."""
    whole = np.floor(positions)
    t = positions - whole
    return np.asarray(whole + t**2 * (3 - 2 * t), np.float32)


def blended(grey: Picture, strength: NDArray[np.floating]) -> Picture:
    """Lay colours over a grey picture (uint8 [h, w, 1]); the stronger, the less of it shows through. strength: 0..1, [h, w, 1]."""
    bgr = cv2.applyColorMap(np.round(255 * strength).astype(np.uint8), COLOURS)
    alpha = OPACITY * strength**SHAPE
    return np.round(DIM * (1 - alpha) * grey + alpha * bgr[..., ::-1]).astype(np.uint8)


def colour_bar(width: int, height: int) -> Picture:
    """Return the scale, 0 to full, as it looks over mid-grey."""
    strength = np.broadcast_to(np.linspace(0, 1, width)[None, :, None], (height, width, 1))
    return blended(np.full((height, width, 1), 127, np.uint8), strength)


def ticks(panel: Panel) -> tuple[Tick, ...]:
    """Return what stands along the scale: 0, the uniform level where there is one, the value in full colour."""
    if panel.uniform is None:
        return Tick(0, "0"), Tick(1, f"{panel.full:.3g}")
    factor = panel.full / panel.uniform
    zero = (Tick(0, "0"),) if factor < CROWDED else ()
    return (*zero, Tick(1 / factor, "uniform"), Tick(1, f"{factor:.3g}x"))


def facts(panel: Panel) -> tuple[str, ...]:
    """Return what stands below a panel: its range, its spread, its note."""
    values, spread = np.stack([m.values for m in panel.maps]), [m.effective for m in panel.maps]
    low, high = (float(v) / (panel.uniform or 1) for v in (values.min(), values.max()))
    over = f"{spread[0]:.0f}" if len(spread) == 1 else f"{min(spread):.0f} to {max(spread):.0f}"
    found = f"{low:.2f} to {high:.2f}" + (" x uniform" if panel.uniform else "")
    return tuple(
        line
        for line in (found, f"spread over {over} of {values[0].size} positions", panel.note)
        if line
    )
