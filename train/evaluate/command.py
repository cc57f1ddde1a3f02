"""`finedge evaluate RUN`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from finedge.confusion.counts import Confusion
from finedge.data import NewImages, select_images
from finedge.data.doubts import doubts
from finedge.files import writable_place
from finedge.pages.extra import require_jinja2
from finedge.subset import first_balanced
from finedge.synthetic import perturb
from finedge.train.device import Device, choose_device
from finedge.train.evaluate.accuracy import accuracy, per_class, predictions
from finedge.train.loader import default_workers
from finedge.train.page import write_run_page
from finedge.train.run import load_run, recorded_data, recorded_split


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    data: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    robustness: bool = False,
    images: int = 0,
    page: Path | None = None,
    new_images: NewImages = "ignore",
    allow_overlap: bool = False,
    device: Device = "auto",
) -> dict[str, Any]:
    """Measure the accuracy of a run on a split.

    Args:
        run: folder made by `finedge train`.
        data: folder of images; default: the images and splits recorded in the run.
        split: which part of the data.
        robustness: also measure on the same images rotated, scaled, seen from the side, bent, and
            cluttered (`finedge.synthetic.perturb`).
        images: how many, chosen evenly over the classes; 0 is the whole split.
        page: also write FILE.html, a page with learning curves, confused classes, and pictures of
            the worst pairs.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
        allow_overlap: also measure on images that the model was trained on; the result counts them.
        device: auto takes the GPU where there is one.
    """
    if page:
        require_jinja2("--page")
        writable_place(page.parent, option="--page")
    loaded = load_run(run)
    folder = recorded_data(run, root=data, new_images=new_images, whole=True)
    chosen = select_images(folder, recorded_split(run), split=split, allow_overlap=allow_overlap)
    items = first_balanced(chosen.items, images)
    measure = partial(
        predictions,
        loaded.model,
        items,
        loaded.spec,
        device=choose_device(device),
        workers=default_workers(),
    )
    clean = measure(progress=f"evaluating {split}")
    confusion = Confusion(loaded.spec.labels, items, clean.answers)
    details: dict[str, Any] = {
        "split": split,
        "classes": per_class(clean.ranks, items, loaded.spec.labels),
        "worst_pairs": [pair.record(chosen.root) for pair in confusion.worst_pairs()],
        "data": chosen.record,
    }
    result = accuracy(clean.ranks)
    if page:
        warnings = doubts(chosen.record)
        write_run_page(page, loaded, split=split, confusion=confusion, warnings=warnings)
        details["page"] = str(page.resolve())
    if not robustness:
        return {**result, **details}
    perturbed = {
        name: accuracy(measure(perturbation=name, progress=f"evaluating {name}").ranks)
        for name in perturb.PERTURBATIONS
    }
    return {**perturb.robustness(result, perturbed), **details}
