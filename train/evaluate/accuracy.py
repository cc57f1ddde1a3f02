"""The accuracy of a model in PyTorch, as ranks of the right labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finedge.data import Item
from finedge.image import read_image
from finedge.measure import accuracy_record
from finedge.progress import progress_bar
from finedge.spec import Spec
from finedge.train.loader import EvaluationImages, Read, batches, normalise
from finedge.train.models import FineGrained

BATCH = 32


@dataclass(frozen=True)
class Predictions:
    """What a model answers to N images.

    Attributes:
        ranks: the rank of each image's label among the scores, int64 [N]; 0 is the first place.
        answers: the class with the highest score, int64 [N].
    """

    ranks: NDArray[np.int64]
    answers: NDArray[np.int64]

    @classmethod
    def of(cls, batches: Sequence[NDArray[np.int64]]) -> Predictions:
        """Join what `answers_of` returned of each batch."""
        ranks, answers = np.concatenate([np.zeros((0, 2), np.int64), *batches]).T
        return cls(ranks, answers)


@torch.no_grad()
def predictions(
    model: FineGrained,
    items: Sequence[Item],
    spec: Spec,
    *,
    device: torch.device,
    workers: int,
    perturbation: str | None = None,
    progress: str = "",
    read: Read = read_image,
) -> Predictions:
    """Return what a model answers to labelled images.

    Args:
        model: moved to `device` and set to evaluation mode.
        items: N images with their labels.
        spec: of the model; ranks are those of its main output.
        device: where the model runs.
        workers: threads that prepare images.
        perturbation: applied to the frames first, one of `finedge.synthetic.perturb.PERTURBATIONS`.
        progress: text of a progress bar; empty for none.
        read: decodes a file.
    """
    model.to(device).eval()
    images = EvaluationImages(items, spec.preprocess, perturbation, read)
    groups = batches(images, range(len(images)), batch_size=BATCH, workers=workers)
    parts = []
    total = math.ceil(len(images) / BATCH)
    with progress_bar(progress, total, enabled=bool(progress)) as advance:
        for batch in groups:
            scores = model(normalise(batch.frames.to(device), spec.preprocess))[spec.main.name]
            parts.append(answers_of(scores, batch.targets.to(device)))
            advance(1)
    return Predictions.of(parts)


def answers_of(scores: torch.Tensor, targets: torch.Tensor) -> NDArray[np.int64]:
    """Return the rank of each label among its scores, and the answer.

    Takes [B, num_classes] and int64 [B], returns int64 [B, 2].
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    hits = order == targets[:, None]
    pairs = torch.stack((hits.int().argmax(dim=1), order[:, 0]), dim=1)
    return pairs.cpu().numpy().astype(np.int64)


def accuracy(ranks: NDArray[np.int64]) -> dict[str, Any]:
    """Return `finedge.measure.accuracy_record` of ranks; without images top1 and top5 are None."""
    if ranks.size == 0:
        return {"top1": None, "top5": None, "n": 0, "wilson95": None}
    return accuracy_record(int((ranks < 1).sum()), int((ranks < 5).sum()), ranks.size)


def per_class(
    ranks: NDArray[np.int64], items: Sequence[Item], labels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return {label: {n, top1}}; top1 is None for a class without images."""
    targets = np.array([item.label for item in items], np.int64)
    total = np.bincount(targets, minlength=len(labels))
    right = np.bincount(targets[ranks == 0], minlength=len(labels))
    return {
        label: {"n": int(n), "top1": round(int(k) / int(n), 6) if n else None}
        for label, n, k in zip(labels, total, right, strict=True)
    }
