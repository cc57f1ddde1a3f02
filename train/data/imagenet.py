"""ImageNet, ILSVRC 2012 (Russakovsky et al., IJCV 2015), from archives or folders of the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finedge.errors import DataError
from finedge.image import is_image
from finedge.train.data.base import Archive, OfficialDataset, Options, Rows, SplitLists, lines
from finedge.train.data.mat import read_mat

DEVKIT = "ILSVRC2012_devkit_t12"


def _index(root: Path, options: Options) -> SplitLists:
    """Read train/SYNSET/*.JPEG, and the validation images as `test`.

    Those are val/SYNSET/*.JPEG, or flat with the devkit's ground truth. Labels follow the sorted
    synset numbers, as in torchvision.
    """
    synsets = sorted(p.name for p in (root / "train").iterdir() if p.is_dir())
    number = {synset: i for i, synset in enumerate(synsets)}
    train = _folders(root, "train", number)
    sorted_folders = any(p.is_dir() for p in (root / "val").iterdir())
    test = _folders(root, "val", number) if sorted_folders else _flat(root, number)
    return SplitLists(_names(root, synsets), {"train": train, "test": test})


def _folders(root: Path, folder: str, number: dict[str, int]) -> Rows:
    """List the images of every synset's folder; a synset without a folder has none."""
    paths = (
        p for synset in number for p in sorted((root / folder / synset).glob("*")) if is_image(p)
    )
    return tuple((p.relative_to(root).as_posix(), number[p.parent.name]) for p in paths)


def _flat(root: Path, number: dict[str, int]) -> Rows:
    """Pair the sorted validation images with the lines of the ground truth.

    Its numbers of synsets are those of meta.mat.
    """
    truth = [
        int(line)
        for line in lines(root / DEVKIT / "data" / "ILSVRC2012_validation_ground_truth.txt")
    ]
    images = sorted(p.name for p in (root / "val").iterdir() if is_image(p))
    if len(images) != len(truth):
        raise DataError(
            f"{root / 'val'} has {len(images)} images",
            expected=f"{len(truth)}, as the ground truth lists",
            fix="unpack ILSVRC2012_img_val.tar again",
        )
    synset = {i: wnid for i, (wnid, _) in _meta(root).items()}
    return tuple(
        (f"val/{image}", number[synset[i]]) for image, i in zip(images, truth, strict=True)
    )


def _names(root: Path, synsets: list[str]) -> tuple[str, ...]:
    """Return `SYNSET words`, or the synset alone where there is no devkit.

    Words alone are not unique: two classes are called crane.
    """
    if not (root / DEVKIT).is_dir():
        return tuple(synsets)
    words = dict(_meta(root).values())
    return tuple(f"{s} {words[s]}" for s in synsets)


def _meta(root: Path) -> dict[int, tuple[str, str]]:
    """Return {ILSVRC2012_ID: (synset, words)} of the leaves in meta.mat."""
    synsets = np.atleast_1d(read_mat(root / DEVKIT / "data" / "meta.mat")["synsets"])
    return {
        int(s["ILSVRC2012_ID"]): (str(s["WNID"]), str(s["words"]))
        for s in synsets
        if int(s["num_children"]) == 0
    }


IMAGENET = OfficialDataset(
    title="ImageNet (ILSVRC 2012)",
    homepage="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
    terms="non-commercial research and education, after a registration",
    # md5 as in torchvision.
    archives=(
        Archive(
            "ILSVRC2012_img_train.tar",
            holds="train",
            digest="md5:1d675b47d978889d74fa0da5fadfb00e",
            into="train",
            nested=True,
        ),
        Archive(
            "ILSVRC2012_img_val.tar",
            holds="val",
            digest="md5:29b22e2961454d5413ddabcf34fc5622",
            into="val",
        ),
        Archive(
            "ILSVRC2012_devkit_t12.tar.gz",
            holds=DEVKIT,
            digest="md5:fa75699e90414af021442c21a62c3abf",
            unless="val/n01440764",
        ),
    ),
    index=_index,
    counts={"": {"classes": 1000, "train": 1281167, "test": 50000}},
    note="put the archives into the folder, or train/ and a val/ that is already sorted into "
    "synsets; the validation images become `test`",
)
