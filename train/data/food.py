"""Food-101 (Bossard et al., ECCV 2014)."""

from __future__ import annotations

import json
from pathlib import Path

from finedge.train.data.base import Archive, OfficialDataset, Options, SplitLists, lines


def _index(root: Path, options: Options) -> SplitLists:
    """Read meta/classes.txt and meta/SPLIT.json, {class: [class/number, ...]}."""
    meta = root / "food-101" / "meta"
    labels = tuple(lines(meta / "classes.txt"))
    splits = {}
    for split in ("train", "test"):
        files = json.loads((meta / f"{split}.json").read_text())
        splits[split] = tuple(
            (f"food-101/images/{file}.jpg", i)
            for i, label in enumerate(labels)
            for file in files[label]
        )
    return SplitLists(labels, splits)


FOOD101 = OfficialDataset(
    title="Food-101",
    homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    terms="Foodspotting's images, not ETH Zurich's property: scientific fair use",
    # Address and md5 as in torchvision.
    archives=(
        Archive(
            "food-101.tar.gz",
            holds="food-101",
            url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            digest="md5:85eeb15f3717b99a5da872d97d918f87",
        ),
    ),
    index=_index,
    counts={"": {"classes": 101, "train": 75750, "test": 25250}},
    note="the training images were not cleaned, on purpose: some labels are wrong",
)
