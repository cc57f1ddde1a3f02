"""Where frames come from: one string names a source; the table `SOURCES` holds every kind."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.errors import DataError, UsageError
from finedge.image import SUFFIXES as IMAGE_SUFFIXES
from finedge.image import is_image
from finedge.runtime.sources.base import Frame, Source, SourceInfo
from finedge.runtime.sources.camera import FORMS as CAMERA_FORMS
from finedge.runtime.sources.camera import open_camera
from finedge.runtime.sources.files import open_folder, open_glob, open_image
from finedge.runtime.sources.scene import open_scene
from finedge.runtime.sources.video import SUFFIXES as VIDEO_SUFFIXES
from finedge.runtime.sources.video import open_video

__all__ = ["SOURCES", "Frame", "Kind", "Source", "SourceInfo", "open_source"]


@dataclass(frozen=True)
class Kind:
    """A kind of source: how it is written, whether a string means it, and what opens it."""

    form: str
    claims: Callable[[str], bool]
    open: Callable[..., Source]


def _is_glob(uri: str) -> bool:
    return glob.has_magic(uri) and not Path(uri).exists()


# The first kind that claims a string opens it.
SOURCES: dict[str, Kind] = {
    "test": Kind("test://", lambda uri: uri.startswith("test://"), open_scene),
    "camera": Kind("/dev/video0, v4l2:///dev/video0, or its number 0", lambda uri: CAMERA_FORMS.fullmatch(uri) is not None, open_camera),
    "glob": Kind("'photos/*.jpg' (in quotes)", lambda uri: "://" not in uri and _is_glob(uri), open_glob),
    "folder": Kind("photos/", lambda uri: uri != "" and Path(uri).is_dir(), open_folder),
    "image": Kind("photo.jpg", lambda uri: "://" not in uri and is_image(Path(uri)), open_image),
    "video": Kind("clip.mp4", lambda uri: "://" not in uri and Path(uri).suffix.lower() in VIDEO_SUFFIXES, open_video),
}


def open_source(uri: str, **options: Any) -> Source:
    """Open what `uri` names; `options` are those of the kind (`fps`, `seed` of test://; `max_unreadable` of folders and globs).

    Raises:
        UsageError: no kind has this form.
        DataError: a file that is missing, or is neither an image nor a video.
        SystemProblem: no such camera.
    """
    for kind in SOURCES.values():
        if kind.claims(uri):
            return kind.open(uri, **options)
    raise _unknown(uri)


def _unknown(uri: str) -> UsageError | DataError:
    forms = "; ".join(kind.form for kind in SOURCES.values())
    if "://" in uri or " ! " in uri or not uri:
        return UsageError(f"unknown source '{_mask(uri)}'", expected=f"one of these forms: {forms}")
    if not Path(uri).exists():
        return DataError(f"there is no file or folder '{uri}'", expected=f"one of these forms: {forms}")
    return DataError(f"'{uri}' is neither an image nor a video by its name", expected=", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)))


def _mask(uri: str) -> str:
    """Hide the password of `scheme://user:password@host`."""
    scheme, mark, rest = uri.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}:***{at}{host}" if at and ":" in user else uri
