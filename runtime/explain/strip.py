"""A frame's panels as one PNG: the answer, the crop, then each view with caption and scale."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from finedge.runtime.explain.explainer import Explained
from finedge.runtime.explain.maps import Panel
from finedge.runtime.explain.overlay import colour_bar, draw, enlarged, facts, ticks

COLUMNS = 5  # pictures a row, at most
GAP = 16
TITLE, SMALL = 17, 14  # letters, in pixels
LINE = 21
SCALE = 12  # height of a colour bar
CAPTION = 5 * LINE + SCALE + LINE + GAP
PAPER, INK, SOFT = (255, 255, 255), (28, 33, 38), (92, 102, 112)


@dataclass(frozen=True)
class Tile:
    """A square picture and the lines below it; `panel` is None for the crop: it has no scale."""

    picture: NDArray[np.uint8]
    title: str
    lines: tuple[str, ...]
    panel: Panel | None = None


def tiles(explained: Explained) -> list[Tile]:
    """Return the crop and every panel, drawn."""
    pixels, panels = explained.pixels, explained.panels
    size = f"{len(pixels)} x {len(pixels)} pixels"
    crop = Tile(enlarged(pixels), "what the network saw", (size,))
    return [crop, *(Tile(draw(pixels, p), p.title, facts(p), p) for p in panels)]


def answer(explained: Explained) -> str:
    """Return the answer as a line: the best label, then up to two others that have 1 % or more."""
    first, *others = explained.top[:3]
    ranked = [first, *(other for other in others if other.p >= 0.01)]
    return ", ".join(f"{r.label} {100 * r.p:.1f} %" for r in ranked)


def strip(tiles: Sequence[Tile], *, heading: str, name: str) -> bytes:
    """Return the PNG."""
    side, rows = len(tiles[0].picture), math.ceil(len(tiles) / COLUMNS)
    columns = math.ceil(len(tiles) / rows)
    top = GAP + 2 * LINE + GAP
    image = Image.new("RGB", (GAP + columns * (side + GAP), top + rows * (side + CAPTION)), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((GAP, GAP), heading, INK, _font(TITLE + 3))
    pen.text((GAP, GAP + LINE + 6), name, SOFT, _font(SMALL))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        _place(image, tile, GAP + column * (side + GAP), top + row * (side + CAPTION))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _place(image: Image.Image, tile: Tile, left: int, top: int) -> None:
    side, pen = len(tile.picture), ImageDraw.Draw(image)
    image.paste(Image.fromarray(tile.picture), (left, top))
    y = top + side + 6
    if tile.panel is not None:
        y = _scale(image, tile.panel, left, y, width=side)
    for line in wrapped(tile.title, _font(TITLE), width=side):
        pen.text((left, y), line, INK, _font(TITLE))
        y += LINE
    for line in (part for text in tile.lines for part in wrapped(text, _font(SMALL), width=side)):
        pen.text((left, y + 2), line, SOFT, _font(SMALL))
        y += LINE - 2


def _scale(image: Image.Image, panel: Panel, left: int, top: int, *, width: int) -> int:
    """Draw the colour bar with its ticks; return where the next line starts."""
    pen, font = ImageDraw.Draw(image), _font(SMALL - 1)
    image.paste(Image.fromarray(colour_bar(width, SCALE)), (left, top))
    for tick in ticks(panel):
        x, length = left + tick.at * (width - 1), pen.textlength(tick.text, font)
        pen.line((x, top + SCALE, x, top + SCALE + 3), SOFT)
        start = min(max(left, x - length / 2), left + width - length)  # inside of the bar
        pen.text((start, top + SCALE + 3), tick.text, SOFT, font)
    return top + SCALE + LINE


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # comes with Pillow: every machine draws the same letters


def wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, *, width: int
) -> Iterator[str]:
    """Yield the lines of a text that fit `width` pixels.

    It breaks at spaces, and after the underscores of words.
    """
    line = ""
    for word in text.replace("_", "_\u200b").split(" "):
        for i, part in enumerate(word.split("\u200b")):
            joined = f"{line} {part}" if line and i == 0 else line + part
            if line and font.getlength(joined) > width:
                yield line
                joined = part
            line = joined
    yield line
