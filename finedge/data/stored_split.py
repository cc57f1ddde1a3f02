"""The split that training used, stored by content: split.json (run), split.json.gz (bundle).

    {"train": [["crow/1.jpg", 0, "SHA-256"], ...], "val": [...], "test": [...],
     "cut": {"seed": 0, "test": 0.2, "val": 0.1} or null}

Paths are relative to the root of the data set, or absolute. Runs of version 0.1 hold neither
digests nor `cut`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any

from finedge.data.digest import digests
from finedge.data.record import SPLITS, DataSet, Item
from finedge.document import parse_json, read_text_file
from finedge.errors import DataError
from finedge.sanitize import printable
from finedge.schema import Constraint, Misfit, decode, is_digest

FILE = "split.json.gz"  # in a bundle
MAX_BYTES = 1 << 28  # bytes of JSON; about two million images
COPY = "copy the whole folder again"


def _is_row(row: Any) -> bool:
    """Tell whether plain data is [path, label] or [path, label, sha256]."""
    if not isinstance(row, list) or len(row) not in (2, 3):
        return False
    path, label, digest = (*row, "")[:3]
    path_fits = isinstance(path, str) and path and "\0" not in path
    digest_fits = isinstance(digest, str) and (not digest or is_digest(digest))
    return bool(path_fits and digest_fits and type(label) is int and label >= 0)


# One check for each row: decoding every value by its type takes a minute for two million rows.
_Rows = tuple[Annotated[Any, Constraint(_is_row, "a row [path, label, sha256]")], ...]


@dataclass(frozen=True)
class _SplitRecord:
    train: _Rows
    val: _Rows = ()
    test: _Rows = ()
    cut: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class StoredImage:
    """One image of a stored split; without `digest` only its path identifies it."""

    path: str
    label: int
    digest: str = ""

    def row(self) -> list[str | int]:
        """Return the entry as it is stored."""
        return [self.path, self.label, *([self.digest] if self.digest else [])]


@dataclass(frozen=True)
class StoredSplit:
    """The images of every split, in training order; `cut` records how val or test were cut."""

    splits: Mapping[str, tuple[StoredImage, ...]]
    cut: Mapping[str, Any] | None = field(default=None)

    def __iter__(self) -> Iterator[tuple[str, StoredImage]]:
        """Yield every entry with its split."""
        return ((split, entry) for split in SPLITS for entry in self.splits.get(split, ()))

    def contents(self, split: str) -> frozenset[str]:
        """Return the digests of a split."""
        return frozenset(entry.digest for entry in self.splits.get(split, ()) if entry.digest)

    def has_digests(self) -> bool:
        """Tell whether every image has a digest."""
        return all(entry.digest for _, entry in self)

    def to_text(self) -> str:
        """Return split.json."""
        rows = {split: [entry.row() for entry in entries] for split, entries in self.splits.items()}
        return json.dumps({**rows, "cut": None if self.cut is None else dict(self.cut)})

    def packed(self) -> bytes:
        """Return split.json.gz; the same split gives the same bytes."""
        return gzip.compress(self.to_text().encode(), mtime=0)


def split_of_dataset(data: DataSet) -> StoredSplit:
    """Return the splits of a data set by content.

    Raises:
        DataError: an image cannot be read, so it has no digest.
    """
    paths = [item.path for items in data.splits.values() for item in items]
    digest_of = digests(paths)
    unreadable = next((path for path in paths if path not in digest_of), None)
    if unreadable is not None:
        what = f"{printable(unreadable)} cannot be read"
        raise DataError(what, expected="every image of the data set", fix="copy it again")

    def entry(item: Item) -> StoredImage:
        return _entry_of(item, data.root, digest=digest_of[item.path])

    splits = {split: tuple(map(entry, items)) for split, items in data.splits.items()}
    return StoredSplit(splits, data.cut)


def with_digests(stored: StoredSplit, root: Path) -> StoredSplit:
    """Return the split with its missing digests, computed from the files below `root`."""
    if stored.has_digests():
        return stored
    digest_of = digests(root / entry.path for _, entry in stored)

    def complete(entry: StoredImage) -> StoredImage:
        if entry.digest:
            return entry
        return replace(entry, digest=digest_of.get(root / entry.path, ""))

    splits = {split: tuple(map(complete, entries)) for split, entries in stored.splits.items()}
    return replace(stored, splits=splits)


def read_split(path: Path) -> StoredSplit:
    """Read split.json.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is damaged.
    """
    text = read_text_file(path, error=DataError, fix=COPY, max_bytes=MAX_BYTES)
    return read_text(text, source=path)


def read_text(text: str, *, source: object) -> StoredSplit:
    """Return the split of the text of split.json.

    Raises:
        DataError: it is not such a record; the error calls it `source`.
    """
    content = parse_json(text, name=str(source), error=DataError, fix=COPY)
    try:
        record = decode(_SplitRecord, content)
        rows = {split: getattr(record, split) for split in SPLITS if split in content}
        splits = {split: tuple(starmap(StoredImage, values)) for split, values in rows.items()}
    except Misfit as error:
        raise _damaged(source, str(error), expected=error.expected) from error
    return StoredSplit(splits, record.cut)


def unpack(content: bytes, *, source: object) -> StoredSplit:
    """Read the bytes of split.json.gz.

    Raises:
        DataError: it is damaged, or larger than any split; the error calls it `source`.
    """
    try:
        gunzip = zlib.decompressobj(wbits=31)
        text = gunzip.decompress(content, MAX_BYTES)
        if not gunzip.eof:
            raise _damaged(source, f"cut short, or more than {MAX_BYTES} bytes")
        return read_text(text.decode(), source=source)
    except (zlib.error, UnicodeDecodeError) as error:
        raise _damaged(source, str(error)) from error


def _damaged(source: object, why: str, *, expected: str = "a split of finedge train") -> DataError:
    return DataError(f"{source} is damaged: {why}", expected=expected, fix=COPY)


def _entry_of(item: Item, root: Path, *, digest: str) -> StoredImage:
    inside = item.path.is_relative_to(root)
    path = item.path.relative_to(root).as_posix() if inside else str(item.path.absolute())
    return StoredImage(path, item.label, digest)
