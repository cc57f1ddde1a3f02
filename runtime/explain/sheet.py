"""index.html: every image with its panels on one self-contained page; jinja2 escapes every text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finedge.pages.pictures import data_address
from finedge.pages.template import render
from finedge.runtime.explain.overlay import colour_bar, ticks
from finedge.runtime.explain.strip import Tile

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
    return render(
        "sheet.html",
        package="finedge.runtime.explain",
        cards=cards,
        title=title,
        about=about,
        bar=data_address(colour_bar(*BAR), ".png"),
    )


def _figure(tile: Tile) -> Figure:
    marks = () if tile.panel is None else ticks(tile.panel)
    scale = tuple((100 * tick.at, tick.text) for tick in marks)
    return Figure(data_address(tile.picture, ".jpg"), tile.title, tile.lines, scale)
