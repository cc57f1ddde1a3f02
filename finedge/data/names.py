"""Reads names of files and folders: which mean a split, belong to a tool, or are equal."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from finedge.data.record import join_names
from finedge.errors import DataError
from finedge.sanitize import printable

# Names of splits as people write them. Case, blanks, dashes and underscores do not count.
ALIASES = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("valset", "validationset", "devset"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "testingset"), "test"),
}
# Names of splits that fit none of train, val and test, and words that such names hold.
UNCLEAR = frozenset({"eval", "evaluation", "evalset", "holdout"})
SPLIT_WORDS = frozenset({*ALIASES, *UNCLEAR, "unlabeled", "unlabelled"})
# Files that systems and programs leave beside pictures. Hidden names (a leading dot) need no entry.
TOOLS = frozenset(
    {
        "__macosx",
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "lost+found",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "network trash folder",
        "temporary items",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)


def split_of(name: str) -> str | None:
    """Return the split that a folder or list of this name holds, or None."""
    return ALIASES.get(_bare(name))


def unclear_split(name: str) -> bool:
    """Tell whether a name means a split, but it is not clear which."""
    return _bare(name) in UNCLEAR


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())


def looks_like_split(name: str) -> bool:
    """Tell whether a name looks like a split: `Training`, `holdout`, `test2017`, `seg_train`."""
    words = re.split(r"[^a-z]+", name.casefold())
    return _bare(name) in SPLIT_WORDS or any(word in SPLIT_WORDS for word in words)


def refuse_splits_as_classes(labels: Sequence[str], *, where: Path) -> None:
    """Refuse a set of classes that are the names of splits."""
    split_names = [label for label in labels if split_of(label) or unclear_split(label)]
    if len(split_names) < 2 and not (labels and all(map(looks_like_split, labels))):
        return
    raise DataError(
        f"the classes of {where} would be {join_names(labels)}: these look like names of splits",
        expected="train/CLASS/*.jpg, and val and test in the same way",
        fix="rename the folders to train, val and test, with one folder for each class in them",
    )


def reason_to_ignore(name: str) -> str | None:
    """Return why a file or folder of this name is never data, or None."""
    if name.startswith("."):
        return "hidden"
    return "made by a tool, not a picture of yours" if name.casefold() in TOOLS else None


def label_text(name: str) -> str:
    """Return a label in the composed form of Unicode (NFC): macOS and Linux differ in it."""
    return unicodedata.normalize("NFC", name)


def refuse_alike(labels: Iterable[str], *, where: Path) -> None:
    """Refuse two labels that differ only in case or blanks: they are easily confused."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[" ".join(label.casefold().split())].append(label)
    alike = next((group for group in groups.values() if len(group) > 1), None)
    if alike:
        raise DataError(
            f"{where} has classes that differ in case or blanks only: {join_names(alike)}",
            expected="names that differ in more",
            fix="merge them under one name, or rename one",
        )


def refuse_not_unicode(names: Iterable[str]) -> None:
    """Refuse a name that is not Unicode text: no record could store it."""
    bad_name = next((name for name in names if any("\ud800" <= c <= "\udfff" for c in name)), None)
    if bad_name is not None:
        raise DataError(
            f"the name '{printable(bad_name)}' is not Unicode text",
            expected="names in UTF-8",
            fix="rename it (convmv -f latin1 -t utf8 does many at once)",
        )
