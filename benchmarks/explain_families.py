"""Draw the maps of several bundles on the same pictures as one sheet for the documents.

    python benchmarks/explain_families.py OUT.jpg --bundles plain.finedge cnl.finedge ... \
        --pictures photos/test/lemon/00.jpg photos/test/lime/00.jpg ...

A row is a picture: its name is that of its folder, the true class. The columns are what the network
saw, and for each bundle one or two maps of `finedge explain` with the bundle's answer below.
OUT.json has the answers, and how far each map is from uniform.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from finedge.bundle import Bundle
from finedge.files import write_bytes, write_text
from finedge.image import read_image
from finedge.runtime.explain.explainer import Explained, Explainer
from finedge.runtime.explain.maps import Panel
from finedge.runtime.explain.overlay import draw, enlarged
from finedge.runtime.explain.strip import wrapped

log = logging.getLogger("explain_families")

# The views that tell most of a model on EfficientNet-Lite; another model shows its first view.
VIEWS = {
    "plain": ("evidence for the class",),
    "cnl": ("looks at blocks.4.2", "evidence for the class"),
    "clca_cga": ("bn2 looks at blocks.4.2",),
    "cs": ("blocks.4.2 looks at the last map",),
    "attend_rectify": ("looks at blocks.6.0",),
}
SIDE, GAP = 176, 8  # pixels
HEAD, CAPTION = 86, 28  # pixels above the columns, and below each picture
FONT, SMALLEST = 20, 11
QUALITY = 78  # JPEG
PAPER, INK, SOFT = (255, 255, 255), (28, 33, 38), (92, 102, 112)
RIGHT, WRONG = (27, 122, 61), (179, 38, 30)


@dataclass(frozen=True)
class Column:
    """Heading (model, view), and for each row a picture, and a caption with its colour."""

    heading: tuple[str, str]
    pictures: tuple[NDArray[np.uint8], ...]
    captions: tuple[tuple[str, tuple[int, int, int]], ...]


def main(
    out: tyro.conf.Positional[Path], *, bundles: tuple[Path, ...], pictures: tuple[Path, ...]
) -> None:
    """Draw the sheet.

    Args:
        out: the JPEG; a JSON file of the same name is written beside it.
        bundles: the bundles, in the order of their columns.
        pictures: the pictures, in the order of their rows.
    """
    frames = [read_image(path) for path in pictures]
    truths = [path.parent.name for path in pictures]
    columns: list[Column] = []
    records = []
    for path in bundles:
        bundle = Bundle.load(path)
        explained = [Explainer(bundle)(frame) for frame in frames]
        if not columns:
            columns.append(_crops(explained, truths))
        columns += _columns(bundle.spec.model, explained, truths)
        records.append(_record(bundle, explained, pictures))
        log.info("%s", path.name)
    write_bytes(out, _sheet(columns))
    write_text(out.with_suffix(".json"), json.dumps(records, indent=1) + "\n")


def _crops(explained: Sequence[Explained], truths: Sequence[str]) -> Column:
    crops = tuple(_small(enlarged(one.pixels)) for one in explained)
    return Column(("picture", "true class"), crops, tuple((name, INK) for name in truths))


def _columns(model: str, explained: Sequence[Explained], truths: Sequence[str]) -> Iterator[Column]:
    """Yield a column for each chosen view; the first has the answers."""
    answers = tuple(
        (f"{one.top[0].label} {100 * one.top[0].p:.0f} %", RIGHT if right else WRONG)
        for one, truth in zip(explained, truths, strict=True)
        for right in [one.top[0].label == truth]
    )
    chosen = [_chosen(model, one.panels) for one in explained]
    for number, panels in enumerate(zip(*chosen, strict=True)):
        pairs = zip(explained, panels, strict=True)
        pictures = tuple(_small(draw(one.pixels, panel)) for one, panel in pairs)
        captions = answers if number == 0 else tuple(("", SOFT) for _ in explained)
        yield Column((model if number == 0 else "", panels[0].view.label), pictures, captions)


def _chosen(model: str, panels: Sequence[Panel]) -> list[Panel]:
    """Return the first panel of each view that `VIEWS` names, or the first panel."""
    labels = VIEWS.get(model, ())
    named = [next((p for p in panels if p.view.label == label), None) for label in labels]
    return [panel for panel in named if panel is not None] or [panels[0]]


def _record(
    bundle: Bundle, explained: Sequence[Explained], pictures: Sequence[Path]
) -> dict[str, Any]:
    """Return the answers, and of each map its highest value as a multiple of uniform."""
    peaks: dict[str, list[float]] = {}
    for one in explained:
        for panel in _chosen(bundle.spec.model, one.panels):
            if panel.uniform:
                peak = max(float(heat.values.max()) for heat in panel.maps) / panel.uniform
                peaks.setdefault(panel.view.label, []).append(round(peak, 2))
    return {
        "bundle": bundle.name,
        "model": bundle.spec.model,
        "backbone": bundle.spec.backbone,
        "digest": bundle.digest(),
        "answers": [
            {
                "picture": f"{path.parent.name}/{path.name}",
                "label": one.top[0].label,
                "p": round(one.top[0].p, 4),
            }
            for one, path in zip(explained, pictures, strict=True)
        ],
        "peak_over_uniform": peaks,
    }


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (SIDE, SIDE)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _sheet(columns: Sequence[Column]) -> bytes:
    rows = len(columns[0].pictures)
    width = GAP + len(columns) * (SIDE + GAP)
    image = Image.new("RGB", (width, HEAD + rows * (SIDE + CAPTION)), PAPER)
    pen = ImageDraw.Draw(image)
    for index, column in enumerate(columns):
        left = GAP + index * (SIDE + GAP)
        pen.text((left, 8), column.heading[0], INK, ImageFont.load_default(FONT + 3))
        font = ImageFont.load_default(FONT - 2)
        for number, line in enumerate(wrapped(column.heading[1], font, width=SIDE)):
            pen.text((left, 36 + 22 * number), line, SOFT, font)
        for row, (text, colour) in enumerate(column.captions):
            top = HEAD + row * (SIDE + CAPTION)
            image.paste(Image.fromarray(column.pictures[row]), (left, top))
            pen.text((left, top + SIDE + 2), *_fitting(text, colour))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _fitting(text: str, colour: tuple[int, int, int]) -> tuple[str, tuple[int, int, int], Any]:
    """Return a text with its colour and the largest font in which it fits a column."""
    fonts = [ImageFont.load_default(size) for size in range(FONT, SMALLEST - 1, -1)]
    font = next((font for font in fonts if font.getlength(text) <= SIDE), fonts[-1])
    return text, colour, font


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tyro.cli(main)
