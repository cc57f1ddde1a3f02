"""`finedge explain`: pictures of what a bundle's classifier looks at."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from finedge.errors import DataError, UsageError, nearest
from finedge.progress import watched

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.runtime.explain.explainer import Explained
    from finedge.runtime.explain.maps import HeatMap, Panel
    from finedge.runtime.explain.sheet import Card
    from finedge.runtime.explain.views import ExplainOptions
    from finedge.runtime.sources import Frame

log = logging.getLogger(__name__)

SCHEMA = 1
ABOUT = (
    "Heat maps over the crop that the network saw, computed from the float model. "
    "Attention is a multiple of the uniform level, at which the model looks at every place alike. "
    "Evidence is how much each place adds to the score of the class: "
    "the mean of the map plus a constant is that score. "
    "A bright place is one that the model uses. "
    "The picture does not say that this place is the reason for the answer, or a good one."
)


def explain(
    bundle: Positional[Path],
    images: Positional[tuple[str, ...]],
    *,
    out: Path,
    at: str = "",
    label: str = "",
    contrast: bool = False,
) -> dict[str, Any]:
    """Show where a classifier looks: one PNG an image, a page with all of them, and the numbers.

        finedge explain birds.finedge photos/ --out explained

    Args:
        bundle: the bundle to look into; it is not changed.
        images: photo.jpg, photos/, 'photos/*.jpg' (in quotes); several.
        out: the folder for NAME.png, index.html and explain.json; its other files stay.
        at: X,Y in 0..1 of the crop, e.g. 0.5,0.3: attention of the query at this place instead of
            the mean over all queries.
        label: evidence for this class instead of the predicted one.
        contrast: also show the evidence for the class rather than for the best other one.
    """
    from finedge.bundle import Bundle
    from finedge.files import writable_place
    from finedge.runtime.explain.explainer import Explainer

    loaded = Bundle.load(bundle)
    options = _options(loaded, at=at, label=label, contrast=contrast)
    writable_place(out, option="--out")
    explainer = Explainer(loaded)
    cards: list[Card] = []
    records: list[dict[str, Any]] = []
    for frame in watched(_frames(images), "explaining"):
        png = _free_name(Path(frame.name), [record["png"] for record in records])
        explained = explainer(frame.image, options)
        cards.append(_write_png(explained, out, name=frame.name, png=png))
        records.append(_record(frame, explained, png))
    _write_pages(loaded, out, at=at, cards=cards, records=records)
    printed = ("image", "png", "label", "p")
    return {
        "out": str(out.resolve()),
        "images": [{key: record[key] for key in printed} for record in records],
    }


def _write_png(explained: Explained, out: Path, *, name: str, png: str) -> Card:
    """Write the PNG of an image; return its card on the page."""
    from finedge.files import write_bytes
    from finedge.runtime.explain.sheet import card
    from finedge.runtime.explain.strip import answer, strip, tiles

    heading, pictures = answer(explained), tiles(explained)
    write_bytes(out / png, strip(pictures, heading=heading, name=name))
    log.debug("%s: %s", name, heading)
    return card(pictures, name=name, answer=heading, png=png)


def _write_pages(
    bundle: Bundle,
    out: Path,
    *,
    at: str,
    cards: Sequence[Card],
    records: Sequence[dict[str, Any]],
) -> None:
    """Write explain.json and index.html."""
    from finedge.bundle import FLOAT_FILE
    from finedge.files import write_text
    from finedge.runtime.explain.sheet import sheet

    content = {
        "schema": SCHEMA,
        "bundle": bundle.name,
        "digest": bundle.digest(),
        "file": FLOAT_FILE,
        "at": at or None,
        "images": list(records),
    }
    title = f"{bundle.name}: {bundle.spec.model} on {bundle.spec.backbone}"
    write_text(out / "explain.json", json.dumps(content, indent=1))
    write_text(out / "index.html", sheet(cards, title=title, about=ABOUT))


def _options(bundle: Bundle, *, at: str, label: str, contrast: bool) -> ExplainOptions:
    """Read the options; refuse those that no view of the bundle would show."""
    from finedge.runtime.explain.views import ExplainOptions

    labels, kinds = bundle.spec.labels, {view.kind for view in bundle.views}
    class_option = (label and "--label") or (contrast and "--contrast")
    for kind, option in (("attention", at and "--at"), ("cam", class_option)):
        if kinds and option and kind not in kinds:
            raise UsageError(
                f"{option}: {bundle.path} has no '{kind}' view",
                expected=f"an option for {', '.join(sorted(kinds))}",
            )
    if label and label not in labels:
        raise UsageError(f"unknown label '{label}'", expected=nearest(label, labels))
    point = _point(at) if at else None
    return ExplainOptions(point, labels.index(label) if label else None, contrast)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
        if 0 <= x <= 1 and 0 <= y <= 1:
            return x, y
    except ValueError:
        pass
    raise UsageError(
        f"--at {text}", expected="X,Y in 0..1 of the crop, from its upper left, e.g. 0.5,0.3"
    )


def _frames(images: Sequence[str]) -> Iterator[Frame]:
    """Yield every image of files, folders and globs; cameras and videos are refused."""
    from finedge.runtime.sources import SOURCES

    kinds = [SOURCES[name] for name in ("glob", "folder", "image")]
    forms = ", ".join(kind.form for kind in kinds)
    if not images:
        raise UsageError("no image was given", expected=forms)
    for uri in images:
        kind = next((kind for kind in kinds if kind.claims(uri)), None)
        if kind is None:
            raise DataError(f"there is no image '{uri}'", expected=forms)
        with kind.open(uri) as source:
            yield from source


def _free_name(image: Path, taken: Sequence[str]) -> str:
    """Return NAME.png, or where another image took that, FOLDER-NAME.png, then with a number."""
    longer = f"{image.resolve().parent.name}-{image.stem}"
    numbered = (f"{longer}-{i}" for i in range(2, len(taken) + 2))
    names = (image.stem, longer, *numbered)
    return next(f"{name}.png" for name in names if f"{name}.png" not in taken)


def _record(frame: Frame, explained: Explained, png: str) -> dict[str, Any]:
    best, size = explained.top[0], len(explained.pixels)
    return {
        "image": frame.name,
        "png": png,
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
