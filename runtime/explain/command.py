"""`finedge explain`: pictures of what a bundle's classifier looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.errors import DataError, UsageError, nearest
from finedge.progress import watched
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.runtime.explain.views import ExplainOptions
    from finedge.runtime.sources import Frame

IMAGES = "Heat maps over the crop that the network saw, computed from the float model."
FLIPS = (
    "The images whose answer INT8 changes on this machine, those that it lost first. "
    "Each heat map is drawn twice: from the float model, and from the INT8 model."
)
TEST_SPLIT = SplitOptions()


def explain(
    bundle: Positional[Path],
    images: Positional[tuple[str, ...]] = (),
    *,
    out: Path,
    at: str = "",
    label: str = "",
    contrast: bool = False,
    flips: bool = False,
    max_flips: int = 24,
    dataset: OmitArgPrefixes[SplitOptions] = TEST_SPLIT,
) -> dict[str, Any]:
    """Show where a classifier looks: one PNG an image, a page with all of them, and the numbers.

        finedge explain birds.finedge photos/ --out explained
        finedge explain birds.finedge --flips --data photos --out flips

    Args:
        bundle: the bundle to look into; it is not changed.
        images: photo.jpg, photos/, 'photos/*.jpg' (in quotes); several.
        out: the folder for NAME.png, index.html and explain.json; its other files stay.
        at: X,Y in 0..1 of the crop, e.g. 0.5,0.3: attention of the query at this place instead of
            the mean over all queries.
        label: evidence for this class instead of the predicted one.
        contrast: also show the evidence for the class rather than for the best other one.
        flips: show labelled images whose answer INT8 changes, in float32 and in INT8.
        max_flips: how many of them to show.
        dataset: the labelled images of --flips.
    """
    from finedge.bundle import Bundle
    from finedge.files import writable_place

    loaded = Bundle.load(bundle)
    options = _options(loaded, at=at, label=label, contrast=contrast)
    writable_place(out, option="--out")
    if not flips:
        return _explain_images(loaded, _frames(images), out, options=options, at=at)
    if images:
        raise UsageError(f"--flips with {images[0]}", expected="--flips --data DIR, or images")
    if max_flips < 1:
        raise UsageError(f"--max-flips {max_flips}", expected="at least 1")
    return _explain_flips(loaded, dataset, out, options=options, limit=max_flips)


def _explain_images(
    bundle: Bundle, frames: Iterator[Frame], out: Path, *, options: ExplainOptions, at: str
) -> dict[str, Any]:
    from finedge.bundle import FLOAT_FILE
    from finedge.runtime.explain.explainer import Explainer
    from finedge.runtime.explain.folder import ExplainFolder, explained_record
    from finedge.runtime.explain.strip import answer, tiles

    explainer, folder = Explainer(bundle), ExplainFolder(bundle, out)
    for frame in watched(frames, "explaining"):
        explained = explainer(frame.image, options)
        record = {"image": frame.name, **explained_record(explained)}
        folder.add(
            tiles(explained), image=Path(frame.name), heading=answer(explained), record=record
        )
    folder.write(about=IMAGES, numbers={"file": FLOAT_FILE, "at": at or None})
    printed = ("image", "png", "label", "p")
    records = [{key: record[key] for key in printed} for record in folder.records]
    return {"out": str(out.resolve()), "images": records}


def _explain_flips(
    bundle: Bundle, dataset: SplitOptions, out: Path, *, options: ExplainOptions, limit: int
) -> dict[str, Any]:
    from finedge.runtime.explain.flips import explain_flips, find_flips
    from finedge.runtime.explain.folder import ExplainFolder

    flips = find_flips(bundle, evaluated_images(bundle, dataset).items)
    folder, items = ExplainFolder(bundle, out), flips.items[:limit]
    images = explain_flips(bundle, items, options)
    for flipped in watched(images, "explaining", total=len(items)):
        folder.add(
            flipped.tiles(),
            image=flipped.item.path,
            heading=flipped.heading(bundle.spec.labels),
            record=flipped.record(bundle.spec.labels),
        )
    folder.write(about=FLIPS, numbers=flips.record())
    records = [
        {"image": r["image"], "png": r["png"], "truth": r["truth"]}
        | {variant: r[variant]["label"] for variant in ("fp32", "int8")}
        for r in folder.records
    ]
    return {"out": str(out.resolve()), **flips.record(), "images": records}


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
        raise UsageError("no image was given", expected=f"{forms}; or --flips --data DIR")
    for uri in images:
        kind = next((kind for kind in kinds if kind.claims(uri)), None)
        if kind is None:
            raise DataError(f"there is no image '{uri}'", expected=forms)
        with kind.open(uri) as source:
            yield from source
