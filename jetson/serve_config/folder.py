"""Folders that are written whole or not at all, and never replace what somebody else wrote."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import UsageError
from finedge.files import new_folder
from finedge.sanitize import printable

README = "README.md"
# A README.md that begins with SIGNATURE is of a folder that this command wrote. Folders of an older
# version continue in other words.
SIGNATURE = "<!-- finedge serve-config writes this folder"
MARK = f"{SIGNATURE} at each run: keep nothing else here -->\n"


@dataclass(frozen=True)
class Request:
    """The options of the user.

    Attributes:
        variant: fp32, fp16, int8, or auto, which is the target's own choice.
        batch: the largest batch the server may form.
        plugin: the plugin's library on the serving machine, or None.
    """

    variant: str = "auto"
    batch: int = 8
    plugin: Path | None = None


@dataclass(frozen=True)
class ServeFolder:
    """A folder to write.

    Attributes:
        name: its path below --out; "" is --out itself.
        files: contents, or files to copy, by relative path.
        notes: what the target does differently from the bundle's own runtime. They are written to
            stderr and to README.md.
        readme: README.md without its notes: a heading, and how to use the folder.
    """

    name: str
    files: Mapping[str, bytes | Path]
    notes: tuple[str, ...]
    readme: str


def write(folder: ServeFolder, out: Path) -> list[Path]:
    """Write a folder below `out`, replacing an older one that this command wrote; return the files.

    Raises:
        UsageError: something else is there, or `out` cannot be a folder.
    """
    place = out / folder.name
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not _has_signature(place)):
        raise UsageError(
            f"{place} holds something that finedge serve-config did not write",
            expected="a new or empty folder",
            fix="--out ANOTHER",
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(
            f"{place.parent} cannot be made: a file is in the way",
            expected="a new or empty folder",
            fix="--out ANOTHER",
        ) from None
    with new_folder(place) as work:
        for name, content in {**folder.files, README: _readme(folder)}.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (work / name).write_bytes(content)
            else:
                shutil.copyfile(content, work / name)
    return [place / name for name in (*folder.files, README)]


def one_line(label: str) -> str:
    """Return a label as a line of a file without escapes: blanks of any kind become one."""
    return printable(" ".join(label.split()))


def _has_signature(place: Path) -> bool:
    readme = place / README
    return readme.is_file() and readme.read_text(errors="replace").startswith(SIGNATURE)


def _readme(folder: ServeFolder) -> bytes:
    notes = "".join(f"- {note}\n" for note in folder.notes)
    return f"{MARK}{folder.readme}\n## What differs from finedge\n\n{notes}".encode()
