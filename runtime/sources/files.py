"""Image files as a source: one file, a folder, or a glob."""

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

# Fraction of the images of a folder or glob. Above it the folder counts as broken.
MAX_UNREADABLE = 0.5


class ImageFiles:
    """The images of a list of files, in order. An unreadable one is skipped and logged at the end.

    Args:
        paths: of the images.
        info: of the source.
        max_unreadable: the fraction of images, in [0, 1], that may be unreadable.

    Raises:
        DataError: at the end: all images, or more than `max_unreadable`, could not be read.
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
            captured_ns = time.monotonic_ns()
            yield Frame(index, captured_ns, image, str(path), (captured_ns - start) / 1e6)
        self._refuse_if_broken()

    def __enter__(self) -> ImageFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Log what was skipped so far, also when the caller stopped early."""
        if self.unreadable:
            log.warning(
                "skipped %d of %d images:\n  %s",
                len(self.unreadable),
                len(self._paths),
                "\n  ".join(self.unreadable.values()),
            )

    def _refuse_if_broken(self) -> None:
        unreadable, total = len(self.unreadable), len(self._paths)
        if unreadable < total and unreadable / total <= self._max_unreadable:
            return
        first = next(iter(self.unreadable.values()))
        if self.info.kind == "image":
            raise DataError(first, expected=f"a whole picture: {', '.join(sorted(SUFFIXES))}")
        images = f"{unreadable} of the {total} images of {self.info.uri}"
        raise DataError(
            f"{images} cannot be read; the first: {first}",
            expected=f"at most {self._max_unreadable:.0%} unreadable",
            fix="copy the images again, or remove those that are listed",
        )


def open_image(uri: str) -> ImageFiles:
    """Open one image file. Iterating refuses it when it cannot be read."""
    return ImageFiles([Path(uri)], SourceInfo("image", uri, frames=1), max_unreadable=0.0)


def open_folder(uri: str, *, max_unreadable: float = MAX_UNREADABLE) -> ImageFiles:
    """Open the images in a folder and its subfolders, sorted by path.

    Training selects files in the same way.
    """
    paths, left_out = pictures_below(Path(uri))
    return _open_list(paths, left_out, kind="folder", uri=uri, max_unreadable=max_unreadable)


def open_glob(uri: str, *, max_unreadable: float = MAX_UNREADABLE) -> ImageFiles:
    """Open the images that match a pattern (`**` crosses folders), sorted by path."""
    matches = glob.glob(uri, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
    paths, left_out = pictures_among(map(Path, matches), asked=frozenset(Path(uri).parts))
    return _open_list(paths, left_out, kind="glob", uri=uri, max_unreadable=max_unreadable)


def _open_list(
    paths: Sequence[Path],
    left_out: Sequence[LeftOut],
    *,
    kind: str,
    uri: str,
    max_unreadable: float,
) -> ImageFiles:
    for entry in left_out:
        log.info("left out: %s", entry)
    if not paths:
        raise DataError(
            f"{kind} '{uri}' has no images",
            expected=f"files named {', '.join(sorted(SUFFIXES))}",
        )
    info = SourceInfo(kind, uri, frames=len(paths))
    return ImageFiles(paths, info, max_unreadable=max_unreadable)
