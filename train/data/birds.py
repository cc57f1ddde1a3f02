"""CUB-200-2011: 200 bird species (Wah et al., 2011)."""

from __future__ import annotations

from pathlib import Path

from finedge.train.data.base import Archive, OfficialDataset, Options, SplitLists, table


def _index(root: Path, options: Options) -> SplitLists:
    """Read the lists, all numbered from 1.

    images.txt, image_class_labels.txt, train_test_split.txt (1 = train) and classes.txt.
    """
    folder = root / "CUB_200_2011"
    files, classes, flags, names = (
        table(folder / f"{t}.txt")
        for t in ("images", "image_class_labels", "train_test_split", "classes")
    )
    rows = {
        key: (f"CUB_200_2011/images/{file}", int(classes[key]) - 1) for key, file in files.items()
    }
    splits = {
        split: tuple(row for key, row in rows.items() if flags[key] == flag)
        for split, flag in (("train", "1"), ("test", "0"))
    }
    return SplitLists(tuple(names[key] for key in sorted(names, key=int)), splits)


CUB200 = OfficialDataset(
    title="CUB-200-2011",
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    terms="non-commercial research and education",
    # The md5 that CaltechDATA publishes.
    archives=(
        Archive(
            "CUB_200_2011.tgz",
            holds="CUB_200_2011",
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            digest="md5:97eceeb196236b17998738112f37df78",
        ),
    ),
    index=_index,
    counts={"": {"classes": 200, "train": 5994, "test": 5794}},
)
