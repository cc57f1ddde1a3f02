"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), from the binary version: the other is pickles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import DataError
from finedge.files import new_folder
from finedge.progress import watched
from finedge.train.data.base import Archive, OfficialDataset, Options, Rows, SplitLists, lines

SIDE = 32
PIXELS = 3 * SIDE * SIDE
SITE = "https://www.cs.toronto.edu/~kriz/"


def _index(
    root: Path,
    options: Options,
    *,
    folder: str,
    names: str,
    files: Mapping[str, tuple[str, ...]],
    label_bytes: int,
) -> SplitLists:
    """Read the records and write their images as PNG below `png`, once.

    A record has `label_bytes` bytes of labels, the last one the fine label, and 3072 pixels in the
    planes R, G, B.
    """
    labels = tuple(lines(root / folder / names))
    records = {
        split: np.concatenate(
            [_records(root / folder / f, size=label_bytes + PIXELS) for f in batch]
        )
        for split, batch in files.items()
    }
    rows = {split: _rows(r[:, label_bytes - 1], split=split) for split, r in records.items()}
    if not (root / "png").is_dir():
        with new_folder(root / "png") as beside:
            for split, record in records.items():
                (beside / split).mkdir()
                images = _images(record[:, label_bytes:])
                for (path, _), image in watched(
                    zip(rows[split], images, strict=True),
                    f"writing {split} images",
                    total=len(record),
                ):
                    cv2.imwrite(str(beside / path.removeprefix("png/")), image)
    return SplitLists(labels, rows)


def _records(path: Path, *, size: int) -> NDArray[np.uint8]:
    data = np.fromfile(path, np.uint8)
    if data.size % size:
        raise DataError(
            f"{path} has {data.size} bytes",
            expected=f"a multiple of {size}",
            fix="delete its folder and run again",
        )
    return data.reshape(-1, size)


def _rows(labels: NDArray[np.uint8], *, split: str) -> Rows:
    return tuple(
        (f"png/{split}/{number:05d}.png", int(label)) for number, label in enumerate(labels)
    )


def _images(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield each row of planes R, G, B as uint8 [32, 32, 3] BGR, the order of cv2."""
    for planes in pixels.reshape(-1, 3, SIDE, SIDE):
        yield np.ascontiguousarray(planes[::-1].transpose(1, 2, 0))


TEN = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
HUNDRED = {"train": ("train.bin",), "test": ("test.bin",)}

CIFAR10 = OfficialDataset(
    title="CIFAR-10",
    homepage=f"{SITE}cifar.html",
    terms="no licence stated; cite Krizhevsky 2009",
    # md5 from the homepage, as for CIFAR-100.
    archives=(
        Archive(
            "cifar-10-binary.tar.gz",
            holds="cifar-10-batches-bin",
            url=f"{SITE}cifar-10-binary.tar.gz",
            digest="md5:c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
    index=partial(
        _index, folder="cifar-10-batches-bin", names="batches.meta.txt", files=TEN, label_bytes=1
    ),
    counts={"": {"classes": 10, "train": 50000, "test": 10000}},
)

CIFAR100 = OfficialDataset(
    title="CIFAR-100",
    homepage=f"{SITE}cifar.html",
    terms="no licence stated; cite Krizhevsky 2009",
    archives=(
        Archive(
            "cifar-100-binary.tar.gz",
            holds="cifar-100-binary",
            url=f"{SITE}cifar-100-binary.tar.gz",
            digest="md5:03b5dce01913d631647c71ecec9e9cb8",
        ),
    ),
    index=partial(
        _index,
        folder="cifar-100-binary",
        names="fine_label_names.txt",
        files=HUNDRED,
        label_bytes=2,
    ),
    counts={"": {"classes": 100, "train": 50000, "test": 10000}},
)
