"""FGVC-Aircraft 2013b: 100 variants, 70 families, 30 manufacturers.

Maji et al., 2013, arXiv 1306.5151.
"""

from __future__ import annotations

from pathlib import Path

from finedge.train.data.base import Archive, OfficialDataset, Options, SplitLists, lines

SITE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
FOLDER = "fgvc-aircraft-2013b/data"
NAMES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}


def _index(root: Path, options: Options) -> SplitLists:
    """Read images_LEVEL_SPLIT.txt with lines `image label`; a label may contain spaces."""
    level, data = options["level"], root / FOLDER
    labels = tuple(lines(data / NAMES[level]))
    number = {label: i for i, label in enumerate(labels)}
    splits = {}
    for split in ("train", "val", "test"):
        pairs = (line.split(" ", 1) for line in lines(data / f"images_{level}_{split}.txt"))
        splits[split] = tuple(
            (f"{FOLDER}/images/{image}.jpg", number[label]) for image, label in pairs
        )
    return SplitLists(labels, splits)


AIRCRAFT = OfficialDataset(
    title="FGVC-Aircraft 2013b",
    homepage=SITE,
    terms="non-commercial research only",
    # The homepage has no md5; torch for R and others compare the same address with this one.
    archives=(
        Archive(
            "fgvc-aircraft-2013b.tar.gz",
            holds="fgvc-aircraft-2013b",
            url=f"{SITE}archives/fgvc-aircraft-2013b.tar.gz",
            digest="md5:d4acdd33327262359767eeaa97a4f732",
        ),
    ),
    index=_index,
    counts={
        "": {"train": 3334, "val": 3333, "test": 3333},
        "level=variant": {"classes": 100},
        "level=family": {"classes": 70},
        "level=manufacturer": {"classes": 30},
    },
    options={"level": ("variant", "family", "manufacturer")},
    note="papers train on train and val together: --merge-val",
)
