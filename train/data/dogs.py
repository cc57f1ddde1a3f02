"""Stanford Dogs: 120 breeds (Khosla et al., 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finedge.train.data.base import Archive, OfficialDataset, Options, SplitLists
from finedge.train.data.mat import read_mat

SITE = "http://vision.stanford.edu/aditya86/ImageNetDogs/"


def _index(root: Path, options: Options) -> SplitLists:
    """Read train_list.mat and test_list.mat.

    They have the cells `file_list` (nSYNSET-Breed/file.jpg) and `labels` from 1.
    """
    labels: dict[int, str] = {}
    splits = {}
    for split in ("train", "test"):
        lists = read_mat(root / f"{split}_list.mat")
        files = [str(f) for f in np.atleast_1d(lists["file_list"])]
        numbers = [int(n) - 1 for n in np.atleast_1d(lists["labels"])]
        labels |= {
            n: f.split("/")[0].split("-", 1)[-1] for f, n in zip(files, numbers, strict=True)
        }
        splits[split] = tuple((f"Images/{f}", n) for f, n in zip(files, numbers, strict=True))
    return SplitLists(tuple(labels[n] for n in sorted(labels)), splits)


DOGS = OfficialDataset(
    title="Stanford Dogs",
    homepage=SITE,
    terms="ImageNet's: non-commercial research and education",
    archives=(
        # The site publishes no digest; TensorFlow Datasets uses these.
        Archive(
            "images.tar",
            holds="Images",
            url=f"{SITE}images.tar",
            digest="sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
        ),
        Archive(
            "lists.tar",
            holds="train_list.mat",
            url=f"{SITE}lists.tar",
            digest="sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
        ),
    ),
    index=_index,
    counts={"": {"classes": 120, "train": 12000, "test": 8580}},
    note="the images are ImageNet's: a backbone trained on ImageNet has seen them, so results on "
    "them are not evidence on their own",
)
