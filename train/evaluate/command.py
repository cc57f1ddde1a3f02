"""`finedge evaluate RUN`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from finedge.data import NewImages, select_images
from finedge.subset import first_balanced
from finedge.synthetic import perturb
from finedge.train.device import Device, choose_device
from finedge.train.evaluate.accuracy import accuracy, per_class, target_ranks
from finedge.train.loader import default_workers
from finedge.train.run import load_run, recorded_data, recorded_split


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    data: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    robustness: bool = False,
    images: int = 0,
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
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
        allow_overlap: also measure on images that the model was trained on; the result counts them.
        device: auto takes the GPU where there is one.
    """
    loaded = load_run(run)
    folder = recorded_data(run, root=data, new_images=new_images, whole=True)
    chosen = select_images(folder, recorded_split(run), split=split, allow_overlap=allow_overlap)
    items = first_balanced(chosen.items, images)
    measure = partial(
        target_ranks,
        loaded.model,
        items,
        loaded.spec,
        device=choose_device(device),
        workers=default_workers(),
    )
    ranks = measure(progress=f"evaluating {split}")
    details = {
        "split": split,
        "classes": per_class(ranks, items, loaded.spec.labels),
        "data": chosen.record,
    }
    if not robustness:
        return {**accuracy(ranks), **details}
    perturbed = {
        name: accuracy(measure(perturbation=name, progress=f"evaluating {name}"))
        for name in perturb.PERTURBATIONS
    }
    return {**perturb.robustness(accuracy(ranks), perturbed), **details}
