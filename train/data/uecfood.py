"""UEC FOOD 100 (Matsuda, Hoashi and Yanai, ICME 2012): photos of one or several dishes."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import cv2

from finedge.errors import DataError
from finedge.files import new_folder
from finedge.image import read_image
from finedge.progress import watched
from finedge.train.data.base import (
    Archive,
    OfficialDataset,
    Options,
    Rows,
    SplitLists,
    lines,
    table,
)

log = logging.getLogger(__name__)

FOLDS = ("0", "1", "2", "3", "4")
QUALITY = 95  # of a crop's JPEG
ListedPhoto = tuple[str, str]  # (category from 1, number of the photo), both as written


def _index(root: Path, options: Options) -> SplitLists:
    """Read category.txt, CATEGORY/bb_info.txt and the five lists valN.txt.

    bb_info.txt has lines `img x1 y1 x2 y2`, a list has lines `.../CATEGORY/PHOTO.jpg`.
    """
    names = table(root / "UECFOOD100" / "category.txt")
    folds = {
        fold: [
            _listed_photo(line)
            for line in lines(root / "uecfood_split" / "uecfood100_split" / f"val{fold}.txt")
        ]
        for fold in FOLDS
    }
    rows = _crops(root, folds) if options["view"] == "crop" else _whole(folds)
    splits = {
        "train": tuple(r for fold in FOLDS if fold != options["fold"] for r in rows[fold]),
        "test": rows[options["fold"]],
    }
    return SplitLists(
        tuple(names[key] for key in sorted(filter(str.isdigit, names), key=int)),
        splits,
        listed=sum(map(len, folds.values())),
    )


def _listed_photo(line: str) -> ListedPhoto:
    category, file = line.split("/")[-2:]
    return category, Path(file).stem


def _whole(folds: dict[str, list[ListedPhoto]]) -> dict[str, Rows]:
    """Return the photos of one category folder only: the others have several labels."""
    labels = Counter(photo for entries in folds.values() for _, photo in entries)
    return {
        fold: tuple((f"UECFOOD100/{c}/{p}.jpg", int(c) - 1) for c, p in entries if labels[p] == 1)
        for fold, entries in folds.items()
    }


def _crops(root: Path, folds: dict[str, list[ListedPhoto]]) -> dict[str, Rows]:
    """Return one crop for each box.

    The first call cuts them into the folder `crops`, which appears when it is complete.
    """
    crops = root / "crops"
    if not crops.is_dir():
        categories = sorted({c for entries in folds.values() for c, _ in entries})
        with new_folder(crops) as beside:
            for category in watched(categories, "cutting boxes", total=len(categories)):
                (beside / category).mkdir()
                _cut(root / "UECFOOD100" / category, beside / category)
    cut: dict[ListedPhoto, list[str]] = {}
    for path in sorted(crops.glob("*/*.jpg")):
        cut.setdefault((path.parent.name, path.stem.split("_")[0]), []).append(
            path.relative_to(root).as_posix()
        )
    return {
        fold: tuple((path, int(e[0]) - 1) for e in entries for path in cut.get(e, ()))
        for fold, entries in folds.items()
    }


def _cut(category: Path, out: Path) -> None:
    """Write PHOTO_BOX.jpg for every box of a category, clipped to the photo.

    A photo that cannot be read and an empty box are logged and left out.
    """
    boxes = [line.split() for line in lines(category / "bb_info.txt")[1:]]
    for number, (photo, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (max(0, int(c)) for c in corners)
        try:
            crop = read_image(category / f"{photo}.jpg")[y1:y2, x1:x2]
        except DataError as error:
            log.warning("left out: %s", error.what)
            continue
        if crop.size == 0:
            log.warning("left out: box %s of %s/%s.jpg is empty", corners, category.name, photo)
            continue
        cv2.imwrite(
            str(out / f"{photo}_{number}.jpg"),
            cv2.cvtColor(crop, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
        )


UECFOOD100 = OfficialDataset(
    title="UEC FOOD 100",
    homepage="http://foodcam.mobi/dataset100.html",
    terms="no licence in the archive; cite Matsuda and Yanai",
    archives=(
        # http://foodcam.mobi serves them, but without TLS and without a digest: nothing would prove
        # what was downloaded.
        Archive("dataset100.zip", holds="UECFOOD100"),
        Archive("uecfood_split.zip", holds="uecfood_split"),
    ),
    index=_index,
    counts={"": {"classes": 100, "listed": 14361}},
    # A photo with several dishes is in several folders, each with its own box: only a crop has one
    # label.
    options={"view": ("crop", "whole"), "fold": FOLDS[::-1]},
    note=(
        "view=crop: every bounding box, cut out and stored as JPEG 95; view=whole: the photos with "
        "one dish only. The crops of one photo may be in different folds: the official lists are "
        "kept as they are"
    ),
)
