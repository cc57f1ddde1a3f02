"""Oxford 102 Flowers (Nilsback and Zisserman, 2008)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finedge.errors import SystemProblem
from finedge.train.data.base import Archive, OfficialDataset, Options, SplitLists
from finedge.train.data.mat import read_mat

SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
IDS = {"train": "trnid", "val": "valid", "test": "tstid"}


def _index(root: Path, options: Options) -> SplitLists:
    """Read setid.mat and imagelabels.mat, both numbered from 1.

    setid.mat has the image numbers of each split, imagelabels.mat the label of image n at n - 1.
    """
    ids, labels = read_mat(root / "setid.mat"), read_mat(root / "imagelabels.mat")["labels"]
    splits = {
        s: tuple(
            (f"jpg/image_{n:05d}.jpg", int(labels[n - 1]) - 1)
            for n in np.atleast_1d(ids[key]).tolist()
        )
        for s, key in IDS.items()
    }
    return SplitLists(_names()[: int(labels.max())], splits)


def _names() -> tuple[str, ...]:
    """Return the 102 names, in the order of the labels.

    The archives have no names; torchvision has them.
    """
    try:
        from torchvision.datasets import Flowers102
    except ModuleNotFoundError as error:
        raise SystemProblem(
            "the names of the flowers come from the package 'torchvision'",
            fix="pip install 'finedge[train]'",
        ) from error
    return tuple(Flowers102.classes)


FLOWERS102 = OfficialDataset(
    title="Oxford 102 Flowers",
    homepage=SITE,
    terms="no licence stated",
    # md5 as in torchvision.
    archives=(
        Archive(
            "102flowers.tgz",
            holds="jpg",
            url=f"{SITE}102flowers.tgz",
            digest="md5:52808999861908f626f3c1f4e79d11fa",
        ),
        Archive(
            "imagelabels.mat",
            holds="imagelabels.mat",
            url=f"{SITE}imagelabels.mat",
            digest="md5:e0620be6f572b9609742df49c70aed4d",
        ),
        Archive(
            "setid.mat",
            holds="setid.mat",
            url=f"{SITE}setid.mat",
            digest="md5:a5357ecc9cb78c4bef273ce3793fc85c",
        ),
    ),
    index=_index,
    counts={"": {"classes": 102, "train": 1020, "val": 1020, "test": 6149}},
    note="most papers train on train and val together: --merge-val",
)
