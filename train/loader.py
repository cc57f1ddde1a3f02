"""Images for training and validation: uint8 batches, prepared ahead by threads.

Threads are enough: decoding and resizing release Python's lock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from finedge.data import Item
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.spec import Preprocess
from finedge.synthetic.perturb import perturb
from finedge.train.augment import Frame, augment
from finedge.train.recipe import Recipe

Read = Callable[[Path], Frame]

AHEAD = 3  # batches being prepared while one is trained on
MAX_WORKERS = 16


@dataclass(frozen=True)
class Batch:
    """frames uint8 [B, crop, crop, 3], RGB; targets int64 [B], class indices."""

    frames: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class EvaluationImages:
    """Map-style data set of the pixels that the device sees.

    A frame goes through `preprocess` only; with `perturbation` it is perturbed first. `read`
    decodes a file.
    """

    items: Sequence[Item]
    preprocessing: Preprocess
    perturbation: str | None = None
    read: Read = read_image

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Frame, int]:
        """Return one image as uint8 [crop, crop, 3] and its class index."""
        item = self.items[index]
        frame = self.read(item.path)
        if self.perturbation:
            frame = perturb(frame, self.perturbation, index=index)
        return preprocess(frame, self.preprocessing), item.label


@dataclass(frozen=True)
class TrainingImages:
    """Map-style data set of augmented pixels.

    They are a function of (seed, epoch, index), so that a resumed run sees the same pixels. `read`
    decodes a file.
    """

    items: Sequence[Item]
    preprocessing: Preprocess
    recipe: Recipe
    epoch: int
    read: Read = read_image

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Frame, int]:
        """Return one augmented image as uint8 [crop, crop, 3] and its class index.

        `index` + k times the number of images is the same image, augmented in another way.
        """
        item = self.items[index % len(self.items)]
        generator = np.random.default_rng((self.recipe.seed, self.epoch, index))
        frame = self.read(item.path)
        pixels = augment(frame, self.preprocessing, recipe=self.recipe, generator=generator)
        return pixels, item.label

    def order(self) -> list[int]:
        """Return the order of this epoch: as many indices as images, in every process the same."""
        generator = np.random.default_rng((self.recipe.seed, self.epoch))
        if self.recipe.sampling == "balanced":
            return balanced([item.label for item in self.items], generator=generator)
        order: list[int] = generator.permutation(len(self)).tolist()
        return order


def balanced(labels: Sequence[int], *, generator: np.random.Generator) -> list[int]:
    """Return as many indices as `labels`, equally many of each class, in random order.

    Each class goes through all its images before one comes again. An image that comes again has its
    index plus n, 2 n, ...: it is then augmented in another way. Where the classes do not divide n,
    some have one image less.
    """
    count = len(labels)
    classes = np.unique(np.asarray(labels))
    each = -(-count // len(classes))
    drawn = []
    for label in classes:
        own = np.flatnonzero(np.asarray(labels) == label)
        rounds = [generator.permutation(own) + r * count for r in range(-(-each // len(own)))]
        drawn.append(np.concatenate(rounds)[:each])
    # One of each class in turn, so that a cut to n takes at most one image from a class.
    turns = np.stack(drawn, axis=1)
    last = generator.permutation(turns[-1])
    indices = np.concatenate([turns[:-1].ravel(), last])[:count]
    order: list[int] = generator.permutation(indices).tolist()
    return order


def default_workers(*, processes: int = 1) -> int:
    """Return the number of threads that prepare images: one for each core, at most 16.

    `processes` processes on this machine share them.
    """
    return max(1, min(MAX_WORKERS, os.cpu_count() or 1) // processes)


def batches(
    images: EvaluationImages | TrainingImages,
    order: Sequence[int],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Batch]:
    """Yield the images of `order` in batches (see `batched`); `workers` threads prepare them."""
    pool = ThreadPoolExecutor(max(1, workers))
    pending: deque[list[Future[tuple[Frame, int]]]] = deque()
    try:
        for group in batched(order, batch_size):
            pending.append([pool.submit(images.__getitem__, index) for index in group])
            if len(pending) > AHEAD:
                yield _collate(pending.popleft())
        while pending:
            yield _collate(pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def batched(order: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return `order` in groups of `size`; a single last image joins the group before it.

    BatchNorm cannot train on one image where it sees one value for each channel. Every image is
    still seen once.
    """
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    if size > 1 and len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [order[len(order) - size - 1 :]]
    return groups


def normalise(frames: torch.Tensor, preprocessing: Preprocess) -> torch.Tensor:
    """Return (pixel / 255 - mean) / std: uint8 [B, H, W, 3] -> float32 [B, 3, H, W].

    In memory the result has its channels last.
    """
    mean, std = (
        torch.tensor(values, device=frames.device).view(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return (frames.permute(0, 3, 1, 2).float() / 255 - mean) / std


def scaled(preprocessing: Preprocess, side: int) -> Preprocess:
    """Return `preprocessing` for another side of the crop in pixels, the resize in proportion."""
    resize = round(preprocessing.resize * side / preprocessing.crop)
    return replace(preprocessing, crop=side, resize=resize)


def _collate(futures: Sequence[Future[tuple[Frame, int]]]) -> Batch:
    frames, labels = zip(*(f.result() for f in futures), strict=True)
    return Batch(torch.from_numpy(np.stack(frames)), torch.tensor(labels, dtype=torch.int64))
