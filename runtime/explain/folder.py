"""The folder that `finedge explain` writes: a PNG an image, index.html, explain.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finedge.bundle import Bundle
from finedge.files import write_bytes, write_text
from finedge.runtime.explain.explainer import Explained
from finedge.runtime.explain.maps import HeatMap, Panel
from finedge.runtime.explain.sheet import Card, card, sheet
from finedge.runtime.explain.strip import Tile, strip

log = logging.getLogger(__name__)

SCHEMA = 1
ABOUT = (
    "Attention is a multiple of the uniform level, at which the model looks at every place alike. "
    "Evidence is how much each place adds to the score of the class: "
    "the mean of the map plus a constant is that score. "
    "A bright place is one that the model uses. "
    "The picture does not say that this place is the reason for the answer, or a good one."
)


class ExplainFolder:
    """Collects images; `write` makes the page and the numbers of all of them.

    Args:
        bundle: what is explained.
        path: the folder; its other files stay.
    """

    def __init__(self, bundle: Bundle, path: Path) -> None:
        self.bundle, self.path = bundle, path
        self.records: list[dict[str, Any]] = []
        self._cards: list[Card] = []

    def add(
        self, tiles: Sequence[Tile], *, image: Path, heading: str, record: Mapping[str, Any]
    ) -> None:
        """Write the PNG of an image and keep its record; `record["image"]` is its name."""
        png = _free_name(image, [entry["png"] for entry in self.records])
        name = record["image"]
        write_bytes(self.path / png, strip(tiles, heading=heading, name=name))
        log.debug("%s: %s", name, heading)
        self._cards.append(card(tiles, name=name, answer=heading, png=png))
        self.records.append({"image": name, "png": png, **record})

    def write(self, *, about: str, numbers: Mapping[str, Any]) -> None:
        """Write index.html, which starts with `about`, and explain.json with `numbers`."""
        content = {
            "schema": SCHEMA,
            "bundle": self.bundle.name,
            "digest": self.bundle.digest(),
            **numbers,
            "images": self.records,
        }
        spec = self.bundle.spec
        title = f"{self.bundle.name}: {spec.model} on {spec.backbone}"
        write_text(self.path / "explain.json", json.dumps(content, indent=1))
        page = sheet(self._cards, title=title, about=f"{about} {ABOUT}")
        write_text(self.path / "index.html", page)


def explained_record(explained: Explained) -> dict[str, Any]:
    """Return the answer and the views of an image as plain data."""
    best, size = explained.top[0], len(explained.pixels)
    return {
        "label": best.label,
        "p": best.p,
        "top": [{"label": ranked.label, "p": ranked.p} for ranked in explained.top],
        "views": [_view_record(panel, size) for panel in explained.panels],
    }


def _view_record(panel: Panel, size: int) -> dict[str, Any]:
    """Return the numbers of a panel; `mark` is (x, y) in 0..1 of the crop."""
    return {
        "title": panel.title,
        "label": panel.view.label,
        "kind": panel.view.kind,
        "tap": panel.view.tap,
        "grid": list(panel.maps[0].values.shape),
        "unit": panel.unit,
        "uniform": panel.uniform,
        "full_colour": panel.full,
        "mark": None if panel.mark is None else _in_crop(panel.mark, size),
        "maps": [_map_record(heat, size) for heat in panel.maps],
        **panel.numbers,
    }


def _map_record(heat: HeatMap, size: int) -> dict[str, Any]:
    """Return the numbers of a map; `peak` is (x, y) in 0..1 of the crop.

    A peak may lie a little outside, where padding puts its centre.
    """
    return {
        "min": float(heat.values.min()),
        "max": float(heat.values.max()),
        "mean": float(heat.values.mean()),
        "effective_positions": heat.effective,
        "peak": _in_crop(heat.peak, size),
    }


def _in_crop(point: tuple[float, float], size: int) -> list[float]:
    return [round(c / size, 4) for c in point]


def _free_name(image: Path, taken: Sequence[str]) -> str:
    """Return NAME.png, or where another image took that, FOLDER-NAME.png, then with a number."""
    longer = f"{image.resolve().parent.name}-{image.stem}"
    numbered = (f"{longer}-{i}" for i in range(2, len(taken) + 2))
    names = (image.stem, longer, *numbered)
    return next(f"{name}.png" for name in names if f"{name}.png" not in taken)
