"""Images on disk as a source: one file, a folder, a glob."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from finedge.data.record import LeftOut
from finedge.data.walk import pictures_among, pictures_below
from finedge.errors import DataError
from finedge.image import SUFFIXES, read_image
from finedge.runtime.sources.base import Frame, SourceInfo

log = logging.getLogger(__name__)

MAX_UNREADABLE = (
    0.5  # of the images of a folder or glob; past this the folder is taken to be broken
)


class ImageFiles:
    """Every image of a list, in order; an unreadable one is skipped and listed at the end.

    Raises:
        DataError: at the end, when all images or more than `max_unreadable` of them (a share in [0, 1]) could not be read.
    """

    live = False

    def __init__(
        self, paths: Sequence[Path], info: SourceInfo, *, max_unreadable: float = MAX_UNREADABLE
    ) -> None:
        self.info, self.unreadable = info, dict[Path, str]()
        self._paths, self._max_unreadable = tuple(paths), max_unreadable

    def __iter__(self) -> Iterator[Frame]:
        """Yield the readable images; `index` is the place in the sorted list."""
        for index, path in enumerate(self._paths):
            start = time.monotonic_ns()
            try:
                image = read_image(path)
            except DataError as error:
                self.unreadable[path] = error.what
                continue
            captured = time.monotonic_ns()
            yield Frame(index, captured, image, str(path), (captured - start) / 1e6)
        self._refuse_if_broken()

    def __enter__(self) -> ImageFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """List what was skipped so far; also when the caller stopped early."""
        if self.unreadable:
            log.warning(
                "skipped %d of %d images:\n  %s",
                len(self.unreadable),
                len(self._paths),
                "\n  ".join(self.unreadable.values()),
            )

    def _refuse_if_broken(self) -> None:
        bad, total = len(self.unreadable), len(self._paths)
        if bad == total or bad / total > self._max_unreadable:
            first = next(iter(self.unreadable.values()))
            if self.info.kind == "image":
                raise DataError(first, expected=f"a whole picture: {', '.join(sorted(SUFFIXES))}")
            raise DataError(
                f"{bad} of the {total} images of {self.info.uri} cannot be read; the first: {first}",
                expected=f"at most {self._max_unreadable:.0%} unreadable",
                fix="copy the images again, or remove those that are listed",
            )


def open_image(uri: str) -> ImageFiles:
    """Open one image file; it is refused when it cannot be read."""
    return ImageFiles([Path(uri)], SourceInfo("image", uri, frames=1), max_unreadable=0.0)


def open_folder(uri: str, *, max_unreadable: float = MAX_UNREADABLE) -> ImageFiles:
    """Open the pictures below a folder, sorted by path; training selects files in the same way."""
    paths, left_out = pictures_below(Path(uri))
    _say(left_out)
    return _some(paths, SourceInfo("folder", uri, frames=len(paths)), max_unreadable)


def open_glob(uri: str, *, max_unreadable: float = MAX_UNREADABLE) -> ImageFiles:
    """Open the pictures that match a pattern (`**` crosses folders), sorted by path."""
    found = glob.glob(uri, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
    paths, left_out = pictures_among(map(Path, found), asked=frozenset(Path(uri).parts))
    _say(left_out)
    return _some(paths, SourceInfo("glob", uri, frames=len(paths)), max_unreadable)


def _say(left_out: Sequence[LeftOut]) -> None:
    for left in left_out:
        log.info("left out: %s", left)


def _some(paths: Sequence[Path], info: SourceInfo, max_unreadable: float) -> ImageFiles:
    if not paths:
        raise DataError(
            f"{info.kind} '{info.uri}' has no images",
            expected=f"files named {', '.join(sorted(SUFFIXES))}",
        )
    return ImageFiles(paths, info, max_unreadable=max_unreadable)
