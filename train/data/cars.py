"""Stanford Cars: 196 makes, models and years (Krause et al., 2013)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finedge.train.data.base import Archive, OfficialDataset, Options, Rows, SplitLists
from finedge.train.data.mat import read_mat


def _index(root: Path, options: Options) -> SplitLists:
    """Read the structure `annotations` with `fname` and `class` from 1; cars_meta.mat has names."""
    names = read_mat(root / "devkit" / "cars_meta.mat")["class_names"]
    lists = {
        "train": root / "devkit" / "cars_train_annos.mat",
        "test": root / "cars_test_annos_withlabels.mat",
    }
    return SplitLists(
        tuple(str(n) for n in np.atleast_1d(names)),
        {split: _rows(path, folder=f"cars_{split}") for split, path in lists.items()},
    )


def _rows(path: Path, *, folder: str) -> Rows:
    annotations = np.atleast_1d(read_mat(path)["annotations"])
    return tuple((f"{folder}/{a['fname']}", int(a["class"]) - 1) for a in annotations)


CARS = OfficialDataset(
    title="Stanford Cars",
    homepage="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    terms="no licence in the archives; research use",
    # There is no official address any more; the md5 are those of torchvision 0.13.
    archives=(
        Archive(
            "cars_train.tgz", holds="cars_train", digest="md5:065e5b463ae28d29e77c1b4b166cfe61"
        ),
        Archive("cars_test.tgz", holds="cars_test", digest="md5:4ce7ebf6a94d07f1952d94dd34c4d501"),
        Archive("car_devkit.tgz", holds="devkit", digest="md5:c3b158d763b6e2245038c8ad08e45376"),
        Archive(
            "cars_test_annos_withlabels.mat",
            holds="cars_test_annos_withlabels.mat",
            digest="md5:b0a2b23655a3edd16d84508592a98d10",
        ),
    ),
    index=_index,
    counts={"": {"classes": 196, "train": 8144, "test": 8041}},
    note="the official address is dead: put the four files into the folder, or name a --mirror",
)
