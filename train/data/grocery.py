"""Grocery Store: fruit, vegetables and cartons, photographed by phone.

Klasson et al., WACV 2019, arXiv 1901.00711.
"""

from __future__ import annotations

import csv
from pathlib import Path

from finedge.train.data.base import Archive, OfficialDataset, Options, SplitLists, lines

SITE = "https://github.com/marcusklasson/GroceryStoreDataset"
FOLDER = "GroceryStoreDataset-master/dataset"
COLUMNS = {"fine": (0, 1), "coarse": (2, 3)}  # of classes.csv: (name, number)


def _index(root: Path, options: Options) -> SplitLists:
    """Read classes.csv and SPLIT.txt with lines `path, fine, coarse`, labels from 0."""
    name, number = COLUMNS[options["level"]]
    with (root / FOLDER / "classes.csv").open(encoding="utf-8", newline="") as file:
        labels = {int(row[number]): row[name] for row in list(csv.reader(file))[1:]}
    splits = {}
    for split in ("train", "val", "test"):
        rows = (line.split(",") for line in lines(root / FOLDER / f"{split}.txt"))
        splits[split] = tuple(
            (f"{FOLDER}/{path}", int((fine, coarse)[options["level"] == "coarse"]))
            for path, fine, coarse in rows
        )
    return SplitLists(tuple(labels[n] for n in sorted(labels)), splits)


GROCERY = OfficialDataset(
    title="Grocery Store",
    homepage=SITE,
    terms="MIT",
    # A snapshot of a branch has no lasting digest.
    archives=(
        Archive(
            "master.zip",
            holds="GroceryStoreDataset-master",
            url=f"{SITE}/archive/refs/heads/master.zip",
        ),
    ),
    index=_index,
    counts={
        "": {"train": 2640, "val": 296, "test": 2485},
        "level=fine": {"classes": 81},
        "level=coarse": {"classes": 43},
    },
    options={"level": ("fine", "coarse")},
)
