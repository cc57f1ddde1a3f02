"""Finds the pictures below a folder, for training, `data check` and `classify`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finedge.data.names import reason_to_ignore
from finedge.data.record import MAX_SHOWN, LeftOut
from finedge.errors import DataError
from finedge.image import is_image
from finedge.regular_files import is_regular
from finedge.sanitize import printable

OURS = "a run or a bundle of finedge"
ALREADY_READ = "a link to a folder that is read anyway"
PicturesAndLeftOut = tuple[tuple[Path, ...], tuple[LeftOut, ...]]
MAX_DEPTH = 64  # folders inside one another; a deeper tree is not a data set


@dataclass
class LeftOutCounts:
    """Counts of the files left out so far, by reason; names are relative to `root`."""

    root: Path
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, path: Path, *, count: int = 1) -> None:
        """Count a file, or a folder with `count` files."""
        self.counts[reason] += count
        if len(self.examples[reason]) < MAX_SHOWN:
            relative = path.relative_to(self.root) if path.is_relative_to(self.root) else path
            self.examples[reason].append(printable(relative))

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return the counts, in the order of their reasons."""
        counts = sorted(self.counts.items())
        return tuple(LeftOut(why, count, tuple(self.examples[why])) for why, count in counts)


@dataclass(frozen=True)
class ImageFolder:
    """A folder that was read: the pictures and folders directly in it, sorted by name."""

    path: Path
    pictures: tuple[Path, ...] = ()
    folders: tuple[ImageFolder, ...] = ()

    def every(self) -> Iterator[Path]:
        """Yield the pictures in the folder and below it."""
        yield from self.pictures
        for folder in self.folders:
            yield from folder.every()

    def holding(self) -> Iterator[ImageFolder]:
        """Yield the folders, this one included, that hold pictures directly."""
        if self.pictures:
            yield self
        for folder in self.folders:
            yield from folder.holding()

    def has_pictures(self) -> bool:
        """Tell whether the folder or one below it holds a picture."""
        return next(self.every(), None) is not None


def walk(root: Path, counts: LeftOutCounts) -> ImageFolder:
    """Read a folder and everything below it; files that are not pictures go into `counts`.

    Links are followed once: a link to a folder that is or was read is left out.

    Raises:
        OSError: a folder that may not be read.
        DataError: folders more than `MAX_DEPTH` deep.
    """
    return _FolderWalk(root, counts).folder(root, depth=0)


def pictures_below(root: Path) -> PicturesAndLeftOut:
    """Return the pictures below a folder, sorted by path, and what was left out."""
    counts = LeftOutCounts(root)
    pictures = sorted(walk(root, counts).every())
    return tuple(pictures), counts.left_out()


def pictures_among(paths: Iterable[Path], *, asked: frozenset[str]) -> PicturesAndLeftOut:
    """Return which of some paths are pictures, sorted, and what was left out.

    Parts of a path that are in `asked` do not count as hidden. A file that is reached again through
    a link to a folder is left out. Folders among the paths are not counted.
    """
    counts, pictures, seen = LeftOutCounts(Path()), [], set[str]()
    for path in sorted(p for p in paths if not os.path.isdir(p)):  # noqa: PTH112
        hidden = (reason_to_ignore(part) for part in path.parts if part not in asked)
        reason = next(filter(None, hidden), None) or _reason_not_picture(path)
        real = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
        if reason is None and real in seen:
            reason = ALREADY_READ
        if reason is not None:
            counts.add(reason, path)
            continue
        seen.add(real)
        pictures.append(path)
    return tuple(pictures), counts.left_out()


def is_below_data(path: Path) -> bool:
    """Tell whether no part of a relative path is hidden or belongs to a tool."""
    return not any(reason_to_ignore(part) for part in path.parts if part not in (".", ".."))


def is_run_or_bundle(folder: Path) -> bool:
    """Tell whether a folder is a run or a bundle: `--out DATA/run` makes no class."""
    marks = (("run.json", "split.json"), ("manifest.json", "golden.npz"))
    return any(all(os.path.isfile(folder / name) for name in names) for names in marks)  # noqa: PTH113


class _FolderWalk:
    def __init__(self, root: Path, counts: LeftOutCounts) -> None:
        self.real_root, self.counts = root.resolve(), counts
        self.seen: set[tuple[int, int]] = set()

    def folder(self, path: Path, *, depth: int) -> ImageFolder:
        if depth > MAX_DEPTH:
            raise DataError(
                f"{printable(path)} is more than {MAX_DEPTH} folders deep",
                expected="classes near the top",
            )
        status = path.stat()
        self.seen.add((status.st_dev, status.st_ino))
        with os.scandir(path) as entries:
            listed = sorted(entries, key=lambda e: e.name)
        pictures, folders = [], []
        for entry in listed:
            child = path / entry.name
            if self._left_out(entry, child):
                continue
            if os.path.isdir(child):  # noqa: PTH112 - False for a circular link
                folders.append(self.folder(child, depth=depth + 1))
            else:
                pictures.append(child)
        return ImageFolder(path, tuple(pictures), tuple(folders))

    def _left_out(self, entry: os.DirEntry[str], path: Path) -> bool:
        reason = reason_to_ignore(entry.name) or self._reason_left_out(entry, path)
        if reason is None:
            return False
        count = _count_files(path) if entry.is_dir(follow_symlinks=False) else 1
        self.counts.add(reason, path, count=count)
        return True

    def _reason_left_out(self, entry: os.DirEntry[str], path: Path) -> str | None:
        if os.path.isdir(path):  # noqa: PTH112
            if entry.is_symlink():
                return self._reason_not_followed(path)
            return self._reason_not_entered(path)
        return _reason_not_picture(path)

    def _reason_not_followed(self, path: Path) -> str | None:
        target = path.resolve()
        inside = target.is_relative_to(self.real_root)
        if inside and is_below_data(target.relative_to(self.real_root)):
            return ALREADY_READ
        return self._reason_not_entered(path)

    def _reason_not_entered(self, path: Path) -> str | None:
        if is_run_or_bundle(path):
            return OURS
        status = path.stat()
        return (
            ALREADY_READ if status.st_ino and (status.st_dev, status.st_ino) in self.seen else None
        )


def _reason_not_picture(path: Path) -> str | None:
    if not is_regular(path):
        dangling = path.is_symlink() and not os.path.exists(path)  # noqa: PTH110
        return "a link to nothing" if dangling else "not a regular file"
    return None if is_image(path) else f"not a picture by its name ({_suffix(path)})"


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return printable(suffix) if 1 < len(suffix) <= 8 else "no known suffix"


def _count_files(folder: Path) -> int:
    """Count the files below a folder that is not read; an empty folder counts as one."""
    return max(1, sum(len(files) for _, _, files in os.walk(folder)))
