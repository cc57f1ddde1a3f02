"""The feature cache: maps of a frozen backbone in memory-mapped float16 files.

FOLDER/KEY/record.json                what the maps depend on (see cache_record.py)
FOLDER/KEY/SPLIT.VIEW.BLOCK.npy       float16 [N, C, h, w], the images of SPLIT in order

View 0 is what evaluation sees. Views 1 to K are augmented; only the train split has them. KEY is
the digest of the record: maps of other pictures, weights or pixels are in another folder. A file
appears whole or not at all. An interrupted caching thus goes on with the first view that it lacks.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finedge.data import DataSet
from finedge.errors import SystemProblem
from finedge.files import write_text
from finedge.image import read_image
from finedge.spec import Preprocess
from finedge.train.backbones import Backbone
from finedge.train.loader import Read
from finedge.train.quick.cache_record import CacheRecord, cache_record
from finedge.train.quick.map_engine import map_function
from finedge.train.quick.map_files import is_whole, write_view
from finedge.train.quick.map_folders import RECORD, cache_folders, folder_bytes, hold, writing
from finedge.train.quick.views import EVALUATION, ViewImages, view_images
from finedge.train.recipe import Recipe

log = logging.getLogger(__name__)

HALF = 2  # bytes of a float16
RESERVE = 64 << 20  # bytes that stay free on the disk: for the run beside the maps
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class FeatureCache:
    """Cached maps of a data set, and the labels of its images.

    Attributes:
        folder: of the files.
        shapes: {block: (C, h, w)}.
        views: K, augmented views of each training image.
        labels: {split: class indices int64 [N]}.
    """

    folder: Path
    shapes: Mapping[str, Shape]
    views: int
    labels: Mapping[str, Tensor]
    _files: dict[tuple[str, int, str], NDArray[np.float16]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def maps(
        self, view: int | Sequence[int], indices: Sequence[int], *, split: str = "train"
    ) -> dict[str, Tensor]:
        """Return {block: float32 [B, C, h, w]} of B images of a split.

        Args:
            view: 0 for the pixels of evaluation, 1 to `views` for augmented ones; one for all
                images, or one for each.
            indices: of the images in the split.
            split: `train`, `val` or `test`; the last two have view 0 only.
        """
        rows = np.asarray(indices, np.int64)
        chosen = np.broadcast_to(np.asarray(view, np.int64), rows.shape)
        return {block: self._gathered(split, block, chosen, rows) for block in self.shapes}

    def _gathered(
        self, split: str, block: str, views: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Tensor:
        half = np.empty((len(rows), *self.shapes[block]), np.float16)
        for view in np.unique(views).tolist():
            places = np.flatnonzero(views == view)
            half[places] = self._file(split, view, block)[rows[places]]
        return torch.from_numpy(half).float()

    def _file(self, split: str, view: int, block: str) -> NDArray[np.float16]:
        key = (split, view, block)
        if key not in self._files:
            self._files[key] = np.load(map_path(self.folder, *key), mmap_mode="r")
        return self._files[key]


@dataclass(frozen=True)
class CachePlan:
    """A cache that may not be complete yet: what it needs, and how large that is.

    Attributes:
        place: the folder of all caches.
        record: what the maps depend on.
        shapes: {block: (C, h, w)}.
        views: the images of each view.
    """

    place: Path
    record: CacheRecord
    shapes: Mapping[str, Shape]
    views: tuple[ViewImages, ...]

    @property
    def folder(self) -> Path:
        """The folder of this cache."""
        return self.place / self.record.key

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(_bytes(view, shape) for view in self.views for shape in self.shapes.values())

    @property
    def missing(self) -> tuple[tuple[ViewImages, tuple[str, ...]], ...]:
        """The views that lack files, each with the blocks that it lacks."""
        lacks = ((view, self._missing_blocks(view)) for view in self.views)
        return tuple((view, blocks) for view, blocks in lacks if blocks)

    @property
    def missing_bytes(self) -> int:
        """The size of the files that are still to be written."""
        return sum(
            _bytes(view, self.shapes[block]) for view, blocks in self.missing for block in blocks
        )

    def require_room(self) -> None:
        """Log the size, and refuse a disk that has no room for it.

        Raises:
            SystemProblem: the disk is too full.
        """
        size, free = self.missing_bytes, _free_bytes(self.folder)
        log.info(
            "feature maps: %s in %s, %s of it to compute; %s holds %s, the disk has %s free",
            mebibytes(self.bytes),
            self.folder,
            mebibytes(size),
            self.place,
            mebibytes(sum(map(folder_bytes, cache_folders(self.place)))),
            mebibytes(free),
        )
        if size and size + RESERVE > free:
            raise SystemProblem(
                f"{self.folder}: {mebibytes(size)} of feature maps, and {mebibytes(free)} free",
                expected=f"{mebibytes(size + RESERVE)} free",
                fix="free some space, give --maps DIR on another disk, or fewer views or a "
                "smaller --size",
            )

    def fill(
        self, backbone: Backbone, *, workers: int, device: torch.device | None = None
    ) -> FeatureCache:
        """Compute the maps that are missing, and return the cache.

        Args:
            backbone: the one of the record. It is used in evaluation mode.
            workers: threads that prepare images.
            device: where it runs; default is the CPU.
        """
        if not (self.folder / RECORD).exists():
            write_text(self.folder / RECORD, self.record.to_text())
        hold(self.folder)
        with writing(self.folder):
            self._write_missing(backbone, workers=workers, device=device or torch.device("cpu"))
        labels = {
            view.split: torch.tensor([item.label for item in view.images.items])
            for view in self.views
            if view.view == EVALUATION
        }
        augmented = max(view.view for view in self.views)
        return FeatureCache(self.folder, self.shapes, augmented, labels)

    def _write_missing(self, backbone: Backbone, *, workers: int, device: torch.device) -> None:
        missing = self.missing
        if not missing:
            return
        # The memory format is that of PyTorch's fastest convolutions.
        backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        size, training = self.record.preprocess["crop"], backbone.training
        backbone.eval()
        compute = map_function(backbone, tuple(self.shapes), size=size, device=device)
        for view, blocks in missing:
            paths = {block: map_path(self.folder, view.split, view.view, block) for block in blocks}
            write_view(view, compute, paths, workers=workers, device=device)
        backbone.train(training)  # blocks that are not frozen go on as they were

    def _missing_blocks(self, view: ViewImages) -> tuple[str, ...]:
        return tuple(
            block
            for block, shape in self.shapes.items()
            if not is_whole(
                map_path(self.folder, view.split, view.view, block),
                shape=(len(view.images), *shape),
            )
        )


def plan_cache(
    backbone: Backbone,
    data: DataSet,
    *,
    preprocess: Preprocess,
    recipe: Recipe,
    shapes: Mapping[str, Shape],
    place: Path,
    views: int | None = None,
    splits: Sequence[str] = ("train", "val"),
    read: Read = read_image,
) -> CachePlan:
    """Return the plan of a cache; nothing is written.

    >>> shapes = map_shapes(model, size=224)
    >>> plan = plan_cache(model.backbone, data, preprocess=spec.preprocess, recipe=recipe,
    ...                   shapes=shapes, place=Path("maps"))
    >>> plan.require_room()
    >>> cache = plan.fill(model.backbone, workers=2)
    >>> cache.maps(0, [0, 1])["bn2"].shape
    torch.Size([2, 1280, 7, 7])

    Args:
        backbone: with the weights that stay frozen.
        data: images and labels.
        preprocess: of evaluation.
        recipe: its augmentation makes the views; its seed does not matter.
        shapes: {block: (C, h, w)} of the maps (see `map_shapes`).
        place: the folder of all caches.
        views: augmented views of each training image; default the recipe's.
        splits: that are cached; a split without images is left out.
        read: decodes a file.
    """
    count = recipe.views if views is None else views
    return CachePlan(
        place,
        cache_record(backbone, data, preprocess=preprocess, recipe=recipe),
        dict(shapes),
        view_images(
            data, preprocess=preprocess, recipe=recipe, views=count, splits=splits, read=read
        ),
    )


def map_path(folder: Path, split: str, view: int, block: str) -> Path:
    """Return the path of one file."""
    return folder / f"{split}.{view}.{block}.npy"


def mebibytes(count: int) -> str:
    """Return a number of bytes for a message."""
    return f"{count / (1 << 20):.0f} MiB"


def _bytes(view: ViewImages, shape: Shape) -> int:
    return HALF * len(view.images) * shape[0] * shape[1] * shape[2]


def _free_bytes(folder: Path) -> int:
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(nearest).free
