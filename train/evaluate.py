"""`finedge evaluate RUN`: the accuracy of a run on a split, in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from finedge.data import Item, NewImages, evaluated
from finedge.measure import accuracy_record
from finedge.spec import Spec
from finedge.subset import first_balanced
from finedge.synthetic import perturb
from finedge.train.device import Device, choose_device
from finedge.train.loader import EvaluationImages, batches, default_workers, normalise
from finedge.train.models import FineGrained
from finedge.train.run import load_run, recorded_data, recorded_split

BATCH = 32


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
    """Accuracy of a run on a split.

    Args:
        run: folder made by `finedge train`.
        data: folder of images; default: the images and splits recorded in the run.
        split: which part of the data.
        robustness: also on the same images turned, scaled, seen from aside, bent, and cluttered (`finedge.synthetic.perturb`).
        images: how many, chosen evenly over the classes; 0 is the whole split.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
        allow_overlap: measure also on images that were trained on; the result counts them.
        device: auto takes the GPU where there is one.
    """
    loaded = load_run(run)
    found = recorded_data(run, root=data, new_images=new_images, whole=True)
    chosen = evaluated(found, recorded_split(run), split=split, allow_overlap=allow_overlap)
    items = first_balanced(chosen.items, images)
    ask = partial(
        target_ranks,
        loaded.model,
        items,
        loaded.spec,
        device=choose_device(device),
        workers=default_workers(),
    )
    ranks = ask()
    rest = {
        "split": split,
        "classes": per_class(ranks, items, loaded.spec.labels),
        "data": chosen.record,
    }
    if not robustness:
        return {**accuracy(ranks), **rest}
    return {
        **perturb.robustness(
            accuracy(ranks),
            {name: accuracy(ask(perturbation=name)) for name in perturb.PERTURBATIONS},
        ),
        **rest,
    }


@torch.no_grad()
def target_ranks(
    model: FineGrained,
    items: Sequence[Item],
    spec: Spec,
    *,
    device: torch.device,
    workers: int,
    perturbation: str | None = None,
) -> NDArray[np.int64]:
    """Return int64 [N]: at which place (0 = first) the main output of `model` puts the label of each image.

    The model is taken to `device`; `perturbation` names one that the frames go through first.
    """
    model.to(device).eval()
    images = EvaluationImages(items, spec.preprocess, perturbation)
    ranks = []
    for batch in batches(images, range(len(images)), batch_size=BATCH, workers=workers):
        scores = model(normalise(batch.frames.to(device), spec.preprocess))[spec.main.name]
        places = (
            scores.argsort(dim=1, descending=True, stable=True) == batch.targets.to(device)[:, None]
        )
        ranks.append(places.int().argmax(dim=1).cpu().numpy())
    return np.concatenate(ranks).astype(np.int64) if ranks else np.zeros(0, np.int64)


def accuracy(ranks: NDArray[np.int64]) -> dict[str, Any]:
    """Return `accuracy_record` of ranks; without an image top1 and top5 are None."""
    if ranks.size == 0:
        return {"top1": None, "top5": None, "n": 0, "wilson95": None}
    return accuracy_record(int((ranks < 1).sum()), int((ranks < 5).sum()), ranks.size)


def per_class(
    ranks: NDArray[np.int64], items: Sequence[Item], labels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return {label: {n, top1}}; top1 is None for a class without an image."""
    targets = np.array([item.label for item in items], np.int64)
    total = np.bincount(targets, minlength=len(labels))
    right = np.bincount(targets[ranks == 0], minlength=len(labels))
    return {
        label: {"n": int(n), "top1": round(int(k) / int(n), 6) if n else None}
        for label, n, k in zip(labels, total, right, strict=True)
    }
