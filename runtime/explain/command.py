"""`finedge explain`: pictures of what a bundle's classifier looks at."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from finedge.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.runtime.explain.explainer import Explained
    from finedge.runtime.explain.maps import Panel
    from finedge.runtime.explain.views import ExplainOptions
    from finedge.runtime.sources import Frame

log = logging.getLogger(__name__)

SCHEMA = 1
ABOUT = (
    "Heat maps over the crop that the network saw, computed from the float model. Attention is shown as a multiple of the uniform level, "
    "at which every place is looked at alike. Evidence is what each place says for the class: its mean, plus a constant, is the class's score. "
    "A bright place is used by the model; that it is the reason, or a good one, the picture does not say."
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

    Args:
        bundle: the bundle to look into; it is not changed.
        images: photo.jpg, photos/, 'photos/*.jpg' (in quotes); several.
        out: the folder for NAME.png, index.html and explain.json; what else it holds stays.
        at: X,Y in 0..1 of the crop: attention of the query there instead of the mean over all, e.g. 0.5,0.3.
        label: evidence for this class instead of the predicted one.
        contrast: also the evidence for the class rather than for the best other one.
    """
    from finedge.bundle import FLOAT_FILE, Bundle
    from finedge.files import writable_place, write_bytes, write_text
    from finedge.runtime.explain.explainer import Explainer
    from finedge.runtime.explain.sheet import card, sheet
    from finedge.runtime.explain.strip import answer, strip, tiles

    loaded = Bundle.load(bundle)
    wish = _wish(loaded, at=at, label=label, contrast=contrast)
    writable_place(out, option="--out")
    explainer, cards, records = Explainer(loaded), [], list[dict[str, Any]]()
    for frame in _frames(images):
        found = explainer(frame.image, wish)
        png = _free_name(Path(frame.name), [r["png"] for r in records])
        shown = tiles(found)
        write_bytes(out / png, strip(shown, heading=answer(found), name=frame.name))
        cards.append(card(shown, name=frame.name, answer=answer(found), png=png))
        records.append(_record(frame, found, png))
        log.info("%s: %s", frame.name, answer(found))
    about = {
        "schema": SCHEMA,
        "bundle": loaded.name,
        "digest": loaded.digest(),
        "file": FLOAT_FILE,
        "at": at or None,
        "images": records,
    }
    write_text(out / "explain.json", json.dumps(about, indent=1))
    write_text(
        out / "index.html",
        sheet(
            cards,
            title=f"{loaded.name}: {loaded.spec.model} on {loaded.spec.backbone}",
            about=ABOUT,
        ),
    )
    return {
        "out": str(out.resolve()),
        "images": [{key: r[key] for key in ("image", "png", "label", "p")} for r in records],
    }


def _wish(bundle: Bundle, *, at: str, label: str, contrast: bool) -> ExplainOptions:
    """Read the options; refuse those that no view of the bundle would show."""
    from finedge.runtime.explain.views import ExplainOptions

    kinds = {view.kind for view in bundle.views}
    for kind, option in (
        ("attention", at and "--at"),
        ("cam", (label and "--label") or (contrast and "--contrast")),
    ):
        if kinds and option and kind not in kinds:
            raise UsageError(
                f"{option}: {bundle.path} has no '{kind}' view",
                expected=f"an option for {', '.join(sorted(kinds))}",
            )
    if label and label not in bundle.spec.labels:
        raise UsageError(f"unknown label '{label}'", expected=nearest(label, bundle.spec.labels))
    return ExplainOptions(
        _point(at) if at else None, bundle.spec.labels.index(label) if label else None, contrast
    )


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
    if not images:
        raise UsageError("no image was given", expected=", ".join(kind.form for kind in kinds))
    for uri in images:
        kind = next((k for k in kinds if k.claims(uri)), None)
        if kind is None:
            raise DataError(f"there is no image '{uri}'", expected=", ".join(k.form for k in kinds))
        with kind.open(uri) as source:
            yield from source


def _free_name(image: Path, taken: Sequence[str]) -> str:
    """Return NAME.png, or where another image took that, FOLDER-NAME.png, and then with a number."""
    longer = f"{image.resolve().parent.name}-{image.stem}"
    names = (image.stem, longer, *(f"{longer}-{i}" for i in range(2, len(taken) + 2)))
    return next(f"{name}.png" for name in names if f"{name}.png" not in taken)


def _record(frame: Frame, found: Explained, png: str) -> dict[str, Any]:
    best, size = found.top[0], len(found.pixels)
    top = [{"label": r.label, "p": r.p} for r in found.top]
    views = [_view_record(panel, size) for panel in found.panels]
    return {
        "image": frame.name,
        "png": png,
        "label": best.label,
        "p": best.p,
        "top": top,
        "views": views,
    }


def _view_record(panel: Panel, size: int) -> dict[str, Any]:
    """`peak` and `mark` are (x, y) in 0..1 of the crop; a peak may lie a little outside, where padding puts its centre."""
    maps = [
        {
            "min": float(m.values.min()),
            "max": float(m.values.max()),
            "mean": float(m.values.mean()),
            "effective_positions": m.effective,
            "peak": [round(c / size, 4) for c in m.peak],
        }
        for m in panel.maps
    ]
    about = {
        "title": panel.title,
        "label": panel.view.label,
        "kind": panel.view.kind,
        "tap": panel.view.tap,
        "grid": list(panel.maps[0].values.shape),
    }
    mark = None if panel.mark is None else [round(c / size, 4) for c in panel.mark]
    return {
        **about,
        "unit": panel.unit,
        "uniform": panel.uniform,
        "full_colour": panel.full,
        "mark": mark,
        "maps": maps,
        **panel.numbers,
    }
