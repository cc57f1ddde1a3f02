"""A published data set: its archives, and how its own lists become (path, label) rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Options = Mapping[str, str]
Rows = tuple[tuple[str, int], ...]  # (path below the folder with forward slashes, label from 0)


@dataclass(frozen=True)
class Archive:
    """One file of the official release.

    Attributes:
        file: its official name.
        holds: a path below the folder that exists if and only if the archive was unpacked
            completely. A file that needs no unpacking holds itself.
        url: official address; empty where nothing serves the file without a registration. The user
            then puts it into the folder.
        digest: `md5:HEX` or `sha256:HEX`; empty where none is published. Then only https is used.
        into: folder that receives the content.
        nested: whether the content is archives again.
        unless: a path that makes this archive unnecessary.
    """

    file: str
    holds: str
    url: str = ""
    digest: str = ""
    into: str = "."
    nested: bool = False
    unless: str = ""


@dataclass(frozen=True)
class SplitLists:
    """Labels and rows of each split, as in the official lists.

    `listed` counts the rows of the lists before any is left out.
    """

    labels: tuple[str, ...]
    splits: Mapping[str, Rows]
    listed: int = 0

    def counts(self) -> dict[str, int]:
        """Return the number of classes and of rows: {"classes", SPLIT, "images", "listed"}.

        SPLIT counts one split, `images` all splits, `listed` the lists.
        """
        sizes = {split: len(rows) for split, rows in self.splits.items()}
        return {
            "classes": len(self.labels),
            **sizes,
            "images": sum(sizes.values()),
            "listed": self.listed or sum(sizes.values()),
        }


@dataclass(frozen=True)
class OfficialDataset:
    """A published data set.

    Attributes:
        title: its name.
        homepage: official address.
        terms: the licence or the terms of use, in one line.
        archives: the files of the release.
        index: index(folder, options) reads the unpacked archives.
        counts: official numbers that are checked: under "" those that always hold, under
            `option=value` those of that choice.
        options: {option: values}, the default value first.
        note: anything else that a user should know.
    """

    title: str
    homepage: str
    terms: str
    archives: tuple[Archive, ...]
    index: Callable[[Path, Options], SplitLists]
    counts: Mapping[str, Mapping[str, int]]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""

    def expected(self, options: Options) -> dict[str, int]:
        """Return the official counts under these options."""
        chosen = ["", *(f"{key}={value}" for key, value in options.items())]
        return {name: count for key in chosen for name, count in self.counts.get(key, {}).items()}

    def downloadable(self) -> bool:
        """Tell whether every archive has an official address."""
        return all(a.url for a in self.archives)


def lines(path: Path) -> list[str]:
    """Return the non-empty lines of a UTF-8 text file, stripped."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def table(path: Path) -> dict[str, str]:
    """Read lines `key value ...`; the value is the rest of the line."""
    pairs = (line.split(maxsplit=1) for line in lines(path))
    return {pair[0]: pair[1] for pair in pairs}
