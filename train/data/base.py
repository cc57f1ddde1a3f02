"""What a published data set is to finedge: where its files come from, and how its own lists become (path, label) rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Options = Mapping[str, str]
Rows = tuple[tuple[str, int], ...]  # (path below the folder with forward slashes, label from 0)


@dataclass(frozen=True)
class Archive:
    """One file of the official release.

    `holds` is a path below the folder that is there if and only if the archive was unpacked whole; a file that needs no
    unpacking holds itself. `url` is empty where nothing serves the file (any more) without a registration: the user puts it
    into the folder. `digest` is `md5:HEX` or `sha256:HEX`, or empty where none is published:
    then only https brings the file. `into` is the folder that receives the content,
    `nested` says that the content is archives again, and `unless` names a path that makes this archive unnecessary.
    """

    file: str
    holds: str
    url: str = ""
    digest: str = ""
    into: str = "."
    nested: bool = False
    unless: str = ""


@dataclass(frozen=True)
class Found:
    """Labels and rows of each split as the official lists give them; `listed` counts their rows before any is left out."""

    labels: tuple[str, ...]
    splits: Mapping[str, Rows]
    listed: int = 0

    def counts(self) -> dict[str, int]:
        """Return the number of classes, of rows in each split, in all splits (`images`), and in the lists (`listed`)."""
        sizes = {split: len(rows) for split, rows in self.splits.items()}
        return {
            "classes": len(self.labels),
            **sizes,
            "images": sum(sizes.values()),
            "listed": self.listed or sum(sizes.values()),
        }


@dataclass(frozen=True)
class Official:
    """A published data set.

    `terms` is the licence or the terms of use in one line. `counts` holds the official numbers: under "" those that always
    hold, under `option=value` those of that choice; what is not in it is not checked. `options` maps an option to its values,
    the default first. `index(folder, options)` reads the unpacked archives. `note` says what a user should know.
    """

    title: str
    homepage: str
    terms: str
    archives: tuple[Archive, ...]
    index: Callable[[Path, Options], Found]
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
