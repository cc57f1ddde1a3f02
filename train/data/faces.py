"""Adience: age group and gender of unfiltered faces, in five folds.

Eidinger, Enbar and Hassner, TIFS 2014.
"""

from __future__ import annotations

import csv
from pathlib import Path

from finedge.train.data.base import Archive, OfficialDataset, Options, Rows, SplitLists

FOLDS = ("0", "1", "2", "3", "4")
GROUPS = ("0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60+")
# The readme calls the third group 8-13; the files have (8, 12).
AGES = {
    "(0, 2)": 0,
    "(4, 6)": 1,
    "(8, 12)": 2,
    "(8, 13)": 2,
    "(15, 20)": 3,
    "(25, 32)": 4,
    "(38, 43)": 5,
    "(48, 53)": 6,
    "(60, 100)": 7,
}
TASKS = {"age": (GROUPS, AGES), "gender": (("female", "male"), {"f": 0, "m": 1})}


def _index(root: Path, options: Options) -> SplitLists:
    """Read fold_N_data.txt, tab-separated; a face is aligned/USER/landmark_aligned_face.FACE.IMAGE.

    A row whose age is none of the eight groups (a single year, another range, None), or whose
    gender is unknown, is left out: no text that could be reached says how the authors map them.
    """
    labels, numbers = TASKS[options["task"]]
    folds = {fold: _fold(root / f"fold_{fold}_data.txt", column=options["task"]) for fold in FOLDS}
    rows = {
        fold: tuple((path, numbers[v]) for path, v in pairs if v in numbers)
        for fold, pairs in folds.items()
    }
    train: Rows = tuple(row for fold in FOLDS if fold != options["fold"] for row in rows[fold])
    return SplitLists(
        labels,
        {"train": train, "test": rows[options["fold"]]},
        listed=sum(map(len, folds.values())),
    )


def _fold(path: Path, *, column: str) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [
            (
                f"aligned/{r['user_id']}/landmark_aligned_face.{r['face_id']}.{r['original_image']}",
                r[column].strip(),
            )
            for r in rows
        ]


ADIENCE = OfficialDataset(
    title="Adience",
    homepage="https://talhassner.github.io/home/projects/Adience/Adience-data.html",
    terms="Flickr photos under Creative Commons licences; the homepage asks for a registration",
    archives=(
        Archive("aligned.tar.gz", holds="aligned"),
        *(Archive(f"fold_{fold}_data.txt", holds=f"fold_{fold}_data.txt") for fold in FOLDS),
    ),
    index=_index,
    counts={"task=age": {"classes": 8}, "task=gender": {"classes": 2}},
    options={"task": ("age", "gender"), "fold": FOLDS},
    note=(
        "register on the homepage and put aligned.tar.gz and the five fold files into the folder; "
        "papers report the mean over fold=0..4. The folds are split by person, but training "
        "splits val from train by image"
    ),
)
