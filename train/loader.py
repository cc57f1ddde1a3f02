"""Images for training and validation: uint8 batches, prepared ahead by threads (decoding and resizing release Python's lock)."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from finedge.data import Item
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.spec import Preprocess
from finedge.train.recipe import Recipe

Frame = NDArray[np.uint8]
Augmentation = Callable[[Frame, np.random.Generator], Frame]

AHEAD = 3  # batches being prepared while one is trained on
MAX_WORKERS = 16
TRIES = 10  # for a random box that fits the image
RATIO = (3 / 4, 4 / 3)  # width to height of a random box


@dataclass(frozen=True)
class Batch:
    """frames uint8 [B, crop, crop, 3], RGB; targets int64 [B], class indices."""

    frames: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class EvaluationImages:
    """Map-style data set of the pixels that the device sees: `preprocess` and nothing else."""

    items: Sequence[Item]
    how: Preprocess

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Frame, int]:
        """Return one image as uint8 [crop, crop, 3] and its class index."""
        item = self.items[index]
        return preprocess(read_image(item.path), self.how), item.label


@dataclass(frozen=True)
class TrainingImages:
    """Map-style data set of augmented pixels: a function of (seed, epoch, index), so that a resumed run sees the same ones."""

    items: Sequence[Item]
    how: Preprocess
    recipe: Recipe
    epoch: int

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Frame, int]:
        """Return one augmented image as uint8 [crop, crop, 3] and its class index."""
        item = self.items[index]
        generator = np.random.default_rng((self.recipe.seed, self.epoch, index))
        return augment(read_image(item.path), self.how, recipe=self.recipe, generator=generator), item.label

    def order(self) -> list[int]:
        """Return the order of this epoch."""
        return np.random.default_rng((self.recipe.seed, self.epoch)).permutation(len(self)).tolist()  # type: ignore[no-any-return]


def default_workers() -> int:
    """Return how many threads prepare images: one a core, at most 16."""
    return min(MAX_WORKERS, os.cpu_count() or 1)


def batches(images: EvaluationImages | TrainingImages, order: Sequence[int], *, batch_size: int, workers: int) -> Iterator[Batch]:
    """Yield the images of `order` in batches; the last one may be smaller. `workers` threads prepare the next ones."""
    pool = ThreadPoolExecutor(max(1, workers))
    pending: deque[list[Future[tuple[Frame, int]]]] = deque()
    try:
        for start in range(0, len(order), batch_size):
            pending.append([pool.submit(images.__getitem__, index) for index in order[start : start + batch_size]])
            if len(pending) > AHEAD:
                yield _collate(pending.popleft())
        while pending:
            yield _collate(pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def normalise(frames: torch.Tensor, how: Preprocess) -> torch.Tensor:
    """Return float32 [B, 3, H, W] (channels last in memory) of uint8 [B, H, W, 3]: (pixel / 255 - mean) / std."""
    mean, std = (torch.tensor(values, device=frames.device).view(1, 3, 1, 1) for values in (how.mean, how.std))
    return (frames.permute(0, 3, 1, 2).float() / 255 - mean) / std


def scaled(how: Preprocess, side: int) -> Preprocess:
    """Return `how` for another side of the crop in pixels, the resize in proportion."""
    return replace(how, crop=side, resize=round(how.resize * side / how.crop))


def augment(frame: Frame, how: Preprocess, *, recipe: Recipe, generator: np.random.Generator) -> Frame:
    """Cut a random box and resize it as evaluation does; mirror it and change its colours if the recipe says so.

    Takes uint8 [H, W, 3], returns uint8 [crop, crop, 3].
    """
    top, left, height, width = _random_box(frame.shape[0], frame.shape[1], how, recipe=recipe, generator=generator)
    image = preprocess(frame[top : top + height, left : left + width], replace(how, resize=how.crop, rule="squash"))
    if recipe.flip and generator.random() < 0.5:
        image = np.flip(image, axis=1)
    return colour_jitter(image, recipe.colour_jitter, generator=generator) if recipe.colour_jitter else image


def colour_jitter(image: Frame, strength: float, *, generator: np.random.Generator) -> Frame:
    """Scale brightness, contrast and saturation of uint8 [H, W, 3] by factors in 1 +- strength."""
    brightness, contrast, saturation = generator.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    pixels = image.astype(np.float32) * brightness
    pixels = (pixels - pixels.mean()) * contrast + pixels.mean()
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pixels = (pixels - grey[..., None]) * saturation + grey[..., None]
    return np.asarray(np.clip(pixels.round(), 0, 255), np.uint8)


def _random_box(rows: int, columns: int, how: Preprocess, *, recipe: Recipe, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) in pixels of the image."""
    if recipe.augment == "crop":
        share = how.crop / how.resize
        sides = (rows, columns) if how.rule == "squash" else (min(rows, columns),) * 2
        height, width = (max(1, round(share * side)) for side in sides)
    else:
        height, width = _random_shape(rows, columns, recipe.min_area, generator)
    top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
    return int(top), int(left), height, width


def _random_shape(rows: int, columns: int, min_area: float, generator: np.random.Generator) -> tuple[int, int]:
    # The "inception" crop: area uniform, ratio uniform in its logarithm; the largest square if no try fits.
    for _ in range(TRIES):
        area = rows * columns * generator.uniform(min_area, 1)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 1 <= height <= rows and 1 <= width <= columns:
            return height, width
    return min(rows, columns), min(rows, columns)


def _collate(futures: Sequence[Future[tuple[Frame, int]]]) -> Batch:
    frames, labels = zip(*(f.result() for f in futures), strict=True)
    return Batch(torch.from_numpy(np.stack(frames)), torch.tensor(labels, dtype=torch.int64))
