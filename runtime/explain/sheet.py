"""index.html: every image with its panels on one self-contained page; jinja2 escapes every text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from finedge.runtime.explain.overlay import colour_bar, ticks
from finedge.runtime.explain.strip import Tile

QUALITY = 88  # JPEG
BAR = (256, 1)  # pixels of the colour bar; the page stretches it


@dataclass(frozen=True)
class Figure:
    """A tile as the page shows it: `source` is a data address, `scale` pairs percent and text."""

    source: str
    title: str
    lines: tuple[str, ...]
    scale: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Card:
    """One image: its name, the answer, the PNG beside the page, its figures."""

    name: str
    answer: str
    png: str
    figures: tuple[Figure, ...]


def card(tiles: Sequence[Tile], *, name: str, answer: str, png: str) -> Card:
    """Return an image's card, its pictures packed as JPEG."""
    return Card(name, answer, png, tuple(_figure(tile) for tile in tiles))


def sheet(cards: Sequence[Card], *, title: str, about: str) -> str:
    """Return the page, without outside assets or scripts."""
    template = files("finedge.runtime.explain").joinpath("sheet.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(template).render(
        cards=cards, title=title, about=about, bar=_address(colour_bar(*BAR), ".png")
    )


def _figure(tile: Tile) -> Figure:
    marks = () if tile.panel is None else ticks(tile.panel)
    scale = tuple((100 * tick.at, tick.text) for tick in marks)
    return Figure(_address(tile.picture, ".jpg"), tile.title, tile.lines, scale)


def _address(picture: NDArray[np.uint8], suffix: str) -> str:
    """Return a picture (RGB) as a data: address."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, picture[..., ::-1], quality)
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
