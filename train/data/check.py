"""What can be wrong with a data set: files, duplicates within and across splits, class balance, sizes. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from finedge.data import SPLITS, DataSet, Item, content_digest
from finedge.errors import DataError
from finedge.image import read_image

BLOCK = 512  # hashes compared with all others at once
MOST_IMAGES = 200_000  # comparing pairs is quadratic: 50,000 images took 6 s of one core
MOST_PAIRS = 100_000  # past this the threshold is too wide, or the images are near empty
TINY = 32  # pixels


@dataclass(frozen=True)
class Look:
    """One image as seen: sha256 of the file, dHash (uint64), height and width in pixels; `why` says why it cannot be read."""

    item: Item
    split: str
    sha: str = ""
    dhash: int = 0
    size: tuple[int, int] = (0, 0)
    why: str = ""


def look_at(data: DataSet) -> list[Look]:
    """Decode every image of every split once, in threads."""
    wanted = [(item, split) for split in SPLITS for item in data.splits.get(split, ())]
    console = Console(stderr=True)
    cv2.setNumThreads(1)  # the pool is the parallelism
    with ThreadPoolExecutor() as pool:
        return list(
            track(
                pool.map(_look, wanted),
                "reading",
                total=len(wanted),
                console=console,
                disable=not console.is_terminal,
            )
        )


def _look(wanted: tuple[Item, str]) -> Look:
    item, split = wanted
    try:
        image = read_image(item.path)
    except DataError as error:
        return Look(item, split, why=error.what)
    return Look(
        item, split, content_digest(item.path), dhash(image), (image.shape[0], image.shape[1])
    )


def dhash(image: NDArray[np.uint8]) -> int:
    """Return the difference hash of an RGB image: 8 x 8 bits, each whether a cell of the 8 x 9 grey thumbnail is darker than its right neighbour."""
    small = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA
    )
    return int.from_bytes(np.packbits(small[:, :-1] < small[:, 1:]).tobytes(), "big")


def exact_groups(looks: Iterable[Look]) -> list[list[Look]]:
    """Return the groups of two or more files with the same bytes."""
    groups: dict[str, list[Look]] = {}
    for look in looks:
        groups.setdefault(look.sha, []).append(look)
    return sorted(
        (g for g in groups.values() if len(g) > 1),
        key=lambda g: (not _across(g), not _mixed(g), str(g[0].item.path)),
    )


def near_pairs(looks: Sequence[Look], *, threshold: int) -> list[tuple[int, Look, Look]]:
    """Return (distance, a, b) of images that differ in at most `threshold` of 64 bits but not in no byte: riskiest first.

    First the pairs across splits, in them those with the same label (they raise the accuracy), then by distance.
    """
    found: list[tuple[int, Look, Look]] = []
    for distance, i, j in _close(np.array([x.dhash for x in looks], np.uint64), threshold):
        if looks[i].sha != looks[j].sha:
            found.append((distance, looks[i], looks[j]))
        if len(found) >= MOST_PAIRS:
            break
    return sorted(found, key=lambda p: (not _across(p[1:]), _mixed(p[1:]), p[0]))


def _close(hashes: NDArray[np.uint64], threshold: int) -> Iterator[tuple[int, int, int]]:
    """Yield (distance, i, j), i < j. With bits as -1 and 1 the dot product is 64 - 2 x the Hamming distance: one matrix product a block."""
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32) * 2 - 1
    for start in range(0, len(bits), BLOCK):
        products = bits[start : start + BLOCK] @ bits[start:].T
        for i, j in np.argwhere(products >= 64 - 2 * threshold).tolist():
            if i < j:
                yield int(64 - products[i, j]) // 2, start + i, start + j


def _across(looks: Iterable[Look]) -> bool:
    return len({x.split for x in looks}) > 1


def _mixed(looks: Iterable[Look]) -> bool:
    return len({x.item.label for x in looks}) > 1


def report(data: DataSet, *, near: int, show: int) -> dict[str, Any]:
    """Return everything found; lists hold at most `show` entries, counts are complete. `pass` is described in `check`."""
    looks = look_at(data)
    bad, good = [x for x in looks if x.why], [x for x in looks if not x.why]
    groups = exact_groups(good)
    leaks, mixed = sum(map(_across, groups)), sum(map(_mixed, groups))
    return {
        "data": str(data.root),
        **data.to_json(),
        "images": len(looks),
        "classes": len(data.labels),
        "pass": not (bad or leaks or mixed),
        "unreadable": {
            "n": len(bad),
            "list": [{**_name(x, data), "why": x.why} for x in bad[:show]],
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


def _name(look: Look, data: DataSet) -> dict[str, str]:
    path = look.item.path
    return {
        "path": str(path.relative_to(data.root) if path.is_relative_to(data.root) else path),
        "split": look.split,
        "label": data.labels[look.item.label],
    }


def _near(looks: list[Look], data: DataSet, *, threshold: int, show: int) -> dict[str, Any]:
    if len(looks) > MOST_IMAGES:
        return {
            "threshold": threshold,
            "why_not": f"{len(looks)} images: pairs are compared up to {MOST_IMAGES}",
        }
    pairs = near_pairs(looks, threshold=threshold)
    kinds = Counter((_across(p[1:]), _mixed(p[1:])) for p in pairs)
    counts = {
        name: {"same_label": kinds[a, False], "different_label": kinds[a, True]}
        for name, a in (("across_splits", True), ("within_split", False))
    }
    listed = [{"distance": d, "a": _name(a, data), "b": _name(b, data)} for d, a, b in pairs[:show]]
    return {"threshold": threshold, "complete": len(pairs) < MOST_PAIRS, **counts, "list": listed}


def _balance(data: DataSet, split: str) -> dict[str, Any]:
    """Return images a class: the smallest, median and largest number over the classes that have any, and the labels that have none."""
    numbers = list(Counter(i.label for i in data.splits[split]).values())
    return {
        "images": sum(numbers),
        "min": min(numbers),
        "median": float(np.median(numbers)),
        "max": max(numbers),
        "empty": list(data.absent(split)),
    }


def _sizes(looks: list[Look], data: DataSet, *, show: int) -> dict[str, Any]:
    """Return min, median and max of the short and long sides in pixels, and the images with a short side under TINY."""
    if not looks:
        return {}
    sides = np.sort(np.array([x.size for x in looks]), axis=1)
    tiny = [x for x in looks if min(x.size) < TINY]
    shown = {
        name: {"min": int(s.min()), "median": float(np.median(s)), "max": int(s.max())}
        for name, s in (("short", sides[:, 0]), ("long", sides[:, 1]))
    }
    return {
        **shown,
        "tiny": {"under": TINY, "n": len(tiny), "list": [_name(x, data) for x in tiny[:show]]},
    }
