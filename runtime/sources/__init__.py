"""Where frames come from: one string names a source; the table `SOURCES` holds every kind."""

from __future__ import annotations

import glob
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from finedge.errors import DataError, UsageError
from finedge.image import SUFFIXES as IMAGE_SUFFIXES
from finedge.image import is_image
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import (
    AS_IT_COMES,
    CAMERA_WISHES,
    CaptureOptions,
    Frame,
    Source,
    SourceInfo,
)
from finedge.runtime.sources.camera import CSI_FORM, open_camera, open_csi
from finedge.runtime.sources.camera import FORMS as CAMERA_FORMS
from finedge.runtime.sources.files import open_folder, open_glob, open_image
from finedge.runtime.sources.gstreamer import open_pipeline
from finedge.runtime.sources.network import open_http, open_rtsp
from finedge.runtime.sources.scene import open_scene
from finedge.runtime.sources.video import SUFFIXES as VIDEO_SUFFIXES
from finedge.runtime.sources.video import open_video
from finedge.secret import learn

__all__ = [
    "SOURCES",
    "CaptureOptions",
    "Frame",
    "Kind",
    "Source",
    "SourceInfo",
    "mask",
    "open_source",
]

# FFmpeg writes to stderr by itself, and addresses with their passwords in it. The diagnosis
# reports the cause.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclass(frozen=True)
class Kind:
    """A kind of source: how it is written, whether a string means it, what opens it, and what of a `CaptureOptions` it can grant.

    `open` takes a `wish` where there are `wishes`; else what is asked comes as an option by its name, if it has one of that name.
    """

    form: str
    claims: Callable[[str], bool]
    open: Callable[..., Source]
    wishes: frozenset[str] = frozenset()


def _is_glob(uri: str) -> bool:
    return glob.has_magic(uri) and not Path(uri).exists()


def _is_pipeline(uri: str) -> bool:
    return uri.rpartition("!")[2].split()[:1] == ["appsink"]


# The first kind that claims a string opens it.
SOURCES: dict[str, Kind] = {
    "test": Kind("test://", lambda uri: uri.startswith("test://"), open_scene),
    "camera": Kind(
        "/dev/video0, v4l2:///dev/video0, or its number 0",
        lambda uri: CAMERA_FORMS.fullmatch(uri) is not None,
        open_camera,
        CAMERA_WISHES,
    ),
    "csi": Kind(CSI_FORM, lambda uri: uri.startswith("csi://"), open_csi, CAMERA_WISHES),
    "rtsp": Kind(
        "rtsp://user:password@host:554/path or rtsps://",
        lambda uri: uri.startswith(("rtsp://", "rtsps://")),
        open_rtsp,
        CAMERA_WISHES | {"latency_ms"},
    ),
    "http": Kind(
        "http://host/path or https:// (MJPEG, a still image, HLS, a video file)",
        lambda uri: uri.startswith(("http://", "https://")),
        open_http,
        CAMERA_WISHES,
    ),
    "gstreamer": Kind(
        "'v4l2src ! appsink' (a GStreamer pipeline that ends in appsink)",
        _is_pipeline,
        open_pipeline,
    ),
    "glob": Kind(
        "'photos/*.jpg' (in quotes)", lambda uri: "://" not in uri and _is_glob(uri), open_glob
    ),
    "folder": Kind("photos/", lambda uri: uri != "" and Path(uri).is_dir(), open_folder),
    "image": Kind("photo.jpg", lambda uri: "://" not in uri and is_image(Path(uri)), open_image),
    "video": Kind(
        "clip.mp4",
        lambda uri: "://" not in uri and Path(uri).suffix.lower() in VIDEO_SUFFIXES,
        open_video,
    ),
}


def open_source(uri: str, *, wish: CaptureOptions = AS_IT_COMES, **options: Any) -> Source:
    """Open what `uri` names.

    Examples:
        >>> from finedge import open_source
        >>> with open_source("test://", fps=10) as source:
        ...     frame = next(iter(source))
        >>> source.info.kind, frame.index, frame.image.shape
        ('test', 0, (480, 640, 3))

    Args:
        uri: one of the forms of `SOURCES`.
        wish: size, rate, flip and latency; a kind that cannot do one of them refuses it.
        options: those of the kind (`reconnect`, `timeout_s` and `via` of live ones; `fps` and `seed` of test://; `max_unreadable` of folders and globs).

    Raises:
        UsageError: no kind has this form, or the kind does not take an option.
        DataError: a file that is missing, or is neither an image nor a video.
        SystemProblem: no such camera, or a stream that cannot be opened.
    """
    learn(uri)
    if "\0" in uri:
        raise UsageError(f"'{mask(uri)}' holds a NUL character", expected="a source without it")
    uri = _usual(uri)
    try:
        kind = next((kind for kind in SOURCES.values() if kind.claims(uri)), None)
        if kind is None:
            raise _unknown(uri)
        _refuse_unknown(wish, options, kind=kind, uri=uri)
        return kind.open(uri, **({"wish": wish} if kind.wishes else wish.asked()), **options)
    except OSError as error:  # of a path that may not be looked at, or is too long
        raise DataError(
            f"cannot read '{mask(uri)}': {error.strerror or error}",
            expected="a readable file or folder; a GStreamer pipeline ends in appsink",
        ) from error


def _usual(uri: str) -> str:
    """Return a source with its scheme in lower case, and a file:// address as the path it means."""
    scheme, found, rest = uri.partition("://")
    if not found or not scheme.isalnum() or " ! " in uri:
        return uri
    if scheme.lower() != "file":
        return f"{scheme.lower()}://{rest}"
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(
            f"'{mask(uri)}' names no file of this machine",
            expected="file:///folder/photo.jpg",
        )
    return unquote(f"/{path}")


def _refuse_unknown(wish: CaptureOptions, options: dict[str, Any], *, kind: Kind, uri: str) -> None:
    takes = set(inspect.signature(kind.open).parameters) - {"uri", "wish"}
    grants = takes | kind.wishes
    for name in [
        *(n for n in wish.asked() if n not in grants),
        *(n for n in options if n not in takes),
    ]:
        raise UsageError(
            f"'{mask(uri)}' takes no {name}",
            expected=", ".join(sorted(grants)) or f"no options for {kind.form}",
        )


def _unknown(uri: str) -> UsageError | DataError:
    forms = "; ".join(kind.form for kind in SOURCES.values())
    if "://" in uri or " ! " in uri or not uri:
        return UsageError(f"unknown source '{mask(uri)}'", expected=f"one of these forms: {forms}")
    if not Path(uri).exists():
        return DataError(
            f"there is no file or folder '{mask(uri)}'",
            expected=f"one of these forms: {forms}",
        )
    return DataError(
        f"'{mask(uri)}' is neither an image nor a video by its name",
        expected=", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)),
    )
