"""Checks a data set: unreadable files, duplicates, class balance, image sizes. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.data import SPLITS, DataSet, Item, content_digest
from finedge.errors import DataError
from finedge.image import read_image
from finedge.progress import watched

BLOCK = 512  # hashes compared with all others at once
MAX_IMAGES = 200_000  # comparing pairs is quadratic: 50,000 images took 6 s of one core
MAX_PAIRS = 100_000  # past this the threshold is too wide, or the images are nearly empty
TINY = 32  # pixels


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one image.

    Attributes:
        item: path and label.
        split: its split.
        sha: sha256 of the file.
        dhash: difference hash, uint64.
        size: height and width in pixels.
        fault: why the file cannot be read; empty where it can.
    """

    item: Item
    split: str
    sha: str = ""
    dhash: int = 0
    size: tuple[int, int] = (0, 0)
    fault: str = ""


def read_facts(data: DataSet) -> list[ImageFacts]:
    """Decode every image of every split once, in threads."""
    listed = [(item, split) for split in SPLITS for item in data.splits.get(split, ())]
    cv2.setNumThreads(1)  # the pool is the parallelism
    with ThreadPoolExecutor() as pool:
        return list(watched(pool.map(_read_facts, listed), "reading", total=len(listed)))


def _read_facts(listed: tuple[Item, str]) -> ImageFacts:
    item, split = listed
    try:
        image = read_image(item.path)
    except DataError as error:
        return ImageFacts(item, split, fault=error.what)
    return ImageFacts(
        item, split, content_digest(item.path), dhash(image), (image.shape[0], image.shape[1])
    )


def dhash(image: NDArray[np.uint8]) -> int:
    """Return the difference hash of an RGB image: 8 x 8 bits.

    A bit says whether a cell of the 8 x 9 grey thumbnail is darker than its right neighbour.
    """
    small = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA
    )
    return int.from_bytes(np.packbits(small[:, :-1] < small[:, 1:]).tobytes(), "big")


def exact_groups(images: Iterable[ImageFacts]) -> list[list[ImageFacts]]:
    """Return the groups of two or more files with the same bytes."""
    groups: dict[str, list[ImageFacts]] = {}
    for image in images:
        groups.setdefault(image.sha, []).append(image)
    return sorted(
        (g for g in groups.values() if len(g) > 1),
        key=lambda g: (not _across(g), not _mixed(g), str(g[0].item.path)),
    )


def near_pairs(
    images: Sequence[ImageFacts], *, threshold: int
) -> list[tuple[int, ImageFacts, ImageFacts]]:
    """Return (distance, a, b) of images whose hashes differ in at most `threshold` of 64 bits.

    Pairs of the same bytes are left out. Pairs across splits come first, among them those with the
    same label (they raise the measured accuracy); then the order is by distance.
    """
    pairs: list[tuple[int, ImageFacts, ImageFacts]] = []
    for distance, i, j in _close(np.array([x.dhash for x in images], np.uint64), threshold):
        if images[i].sha != images[j].sha:
            pairs.append((distance, images[i], images[j]))
        if len(pairs) >= MAX_PAIRS:
            break
    return sorted(pairs, key=lambda p: (not _across(p[1:]), _mixed(p[1:]), p[0]))


def _close(hashes: NDArray[np.uint64], threshold: int) -> Iterator[tuple[int, int, int]]:
    """Yield (distance, i, j), i < j.

    With bits as -1 and 1 the dot product is 64 - 2 x the Hamming distance. So one matrix product
    compares a block with all others.
    """
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32) * 2 - 1
    for start in range(0, len(bits), BLOCK):
        products = bits[start : start + BLOCK] @ bits[start:].T
        for i, j in np.argwhere(products >= 64 - 2 * threshold).tolist():
            if i < j:
                yield int(64 - products[i, j]) // 2, start + i, start + j


def _across(images: Iterable[ImageFacts]) -> bool:
    return len({x.split for x in images}) > 1


def _mixed(images: Iterable[ImageFacts]) -> bool:
    return len({x.item.label for x in images}) > 1


def report(data: DataSet, *, near: int, show: int) -> dict[str, Any]:
    """Return the result of `finedge data check`.

    Lists have at most `show` entries; counts are complete.
    """
    images = read_facts(data)
    bad, good = [x for x in images if x.fault], [x for x in images if not x.fault]
    groups = exact_groups(good)
    leaks, mixed = sum(map(_across, groups)), sum(map(_mixed, groups))
    return {
        "data": str(data.root),
        **data.to_json(),
        "images": len(images),
        "classes": len(data.labels),
        "pass": not (bad or leaks or mixed),
        "unreadable": {
            "n": len(bad),
            "list": [{**_name(x, data), "why": x.fault} for x in bad[:show]],
        },
        "exact": {
            "groups": len(groups),
            "across_splits": leaks,
            "different_label": mixed,
            "list": [[_name(x, data) for x in g] for g in groups[:show]],
        },
        "near": _near(good, data, threshold=near, show=show),
        "balance": {split: _balance(data, split) for split in SPLITS if data.splits.get(split)},
        "sizes": _sizes(good, data, show=show),
    }


def _name(image: ImageFacts, data: DataSet) -> dict[str, str]:
    path = image.item.path
    return {
        "path": str(path.relative_to(data.root) if path.is_relative_to(data.root) else path),
        "split": image.split,
        "label": data.labels[image.item.label],
    }


def _near(images: list[ImageFacts], data: DataSet, *, threshold: int, show: int) -> dict[str, Any]:
    if len(images) > MAX_IMAGES:
        return {
            "threshold": threshold,
            "why_not": f"{len(images)} images: pairs are compared up to {MAX_IMAGES}",
        }
    pairs = near_pairs(images, threshold=threshold)
    kinds = Counter((_across(p[1:]), _mixed(p[1:])) for p in pairs)
    counts = {
        name: {"same_label": kinds[a, False], "different_label": kinds[a, True]}
        for name, a in (("across_splits", True), ("within_split", False))
    }
    listed = [{"distance": d, "a": _name(a, data), "b": _name(b, data)} for d, a, b in pairs[:show]]
    return {"threshold": threshold, "complete": len(pairs) < MAX_PAIRS, **counts, "list": listed}


def _balance(data: DataSet, split: str) -> dict[str, Any]:
    """Return the smallest, median and largest number of images of a class, and empty classes.

    The three numbers are over classes that have images.
    """
    numbers = list(Counter(i.label for i in data.splits[split]).values())
    return {
        "images": sum(numbers),
        "min": min(numbers),
        "median": float(np.median(numbers)),
        "max": max(numbers),
        "empty": list(data.absent(split)),
    }


def _sizes(images: list[ImageFacts], data: DataSet, *, show: int) -> dict[str, Any]:
    """Return min, median and max of the short and long sides in pixels.

    `tiny` lists the images with a short side under TINY.
    """
    if not images:
        return {}
    sides = np.sort(np.array([x.size for x in images]), axis=1)
    tiny = [x for x in images if min(x.size) < TINY]
    sides_in_pixels = {
        name: {"min": int(s.min()), "median": float(np.median(s)), "max": int(s.max())}
        for name, s in (("short", sides[:, 0]), ("long", sides[:, 1]))
    }
    return {
        **sides_in_pixels,
        "tiny": {"under": TINY, "n": len(tiny), "list": [_name(x, data) for x in tiny[:show]]},
    }
