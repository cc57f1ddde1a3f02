"""Where frames come from: one string names a source; the table `SOURCES` holds every kind."""

from __future__ import annotations

import glob
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.errors import DataError, UsageError
from finedge.image import SUFFIXES as IMAGE_SUFFIXES
from finedge.image import is_image
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import Frame, Source, SourceInfo, Wish
from finedge.runtime.sources.camera import CSI_FORM, open_camera, open_csi
from finedge.runtime.sources.camera import FORMS as CAMERA_FORMS
from finedge.runtime.sources.files import open_folder, open_glob, open_image
from finedge.runtime.sources.gstreamer import open_pipeline
from finedge.runtime.sources.network import open_http, open_rtsp
from finedge.runtime.sources.scene import open_scene
from finedge.runtime.sources.video import SUFFIXES as VIDEO_SUFFIXES
from finedge.runtime.sources.video import open_video

__all__ = ["SOURCES", "Frame", "Kind", "Source", "SourceInfo", "mask", "open_source"]


@dataclass(frozen=True)
class Kind:
    """A kind of source: how it is written, whether a string means it, and what opens it."""

    form: str
    claims: Callable[[str], bool]
    open: Callable[..., Source]


def _is_glob(uri: str) -> bool:
    return glob.has_magic(uri) and not Path(uri).exists()


def _is_pipeline(uri: str) -> bool:
    return uri.rpartition("!")[2].split()[:1] == ["appsink"]


# The first kind that claims a string opens it.
SOURCES: dict[str, Kind] = {
    "test": Kind("test://", lambda uri: uri.startswith("test://"), open_scene),
    "camera": Kind("/dev/video0, v4l2:///dev/video0, or its number 0", lambda uri: CAMERA_FORMS.fullmatch(uri) is not None, open_camera),
    "csi": Kind(CSI_FORM, lambda uri: uri.startswith("csi://"), open_csi),
    "rtsp": Kind("rtsp://user:password@host:554/path or rtsps://", lambda uri: uri.startswith(("rtsp://", "rtsps://")), open_rtsp),
    "http": Kind("http://host/path or https:// (MJPEG, HLS, a video file)", lambda uri: uri.startswith(("http://", "https://")), open_http),
    "gstreamer": Kind("'v4l2src ! appsink' (a GStreamer pipeline that ends in appsink)", _is_pipeline, open_pipeline),
    "glob": Kind("'photos/*.jpg' (in quotes)", lambda uri: "://" not in uri and _is_glob(uri), open_glob),
    "folder": Kind("photos/", lambda uri: uri != "" and Path(uri).is_dir(), open_folder),
    "image": Kind("photo.jpg", lambda uri: "://" not in uri and is_image(Path(uri)), open_image),
    "video": Kind("clip.mp4", lambda uri: "://" not in uri and Path(uri).suffix.lower() in VIDEO_SUFFIXES, open_video),
}


def open_source(
    uri: str,
    *,
    width: int | None = None,
    height: int | None = None,
    fps: float | None = None,
    flip: int = 0,
    latency_ms: int | None = None,
    **options: Any,
) -> Source:
    """Open what `uri` names.

    Args:
        uri: one of the forms of `SOURCES`.
        width: see `Wish`, as the four that follow; a kind that cannot do one of them refuses it.
        height: see `Wish`.
        fps: see `Wish`; of test:// the rate.
        flip: see `Wish`.
        latency_ms: see `Wish`.
        options: those of the kind (`reconnect`, `timeout_s` and `via` of live ones; `seed` of test://; `max_unreadable` of folders and globs).

    Raises:
        UsageError: no kind has this form, or the kind does not take an option.
        DataError: a file that is missing, or is neither an image nor a video.
        SystemProblem: no such camera, or a stream that cannot be opened.
    """
    wish = vars(Wish(width, height, fps, flip, latency_ms))
    asked = {name: value for name, value in wish.items() if value != getattr(Wish, name)} | options
    for kind in SOURCES.values():
        if kind.claims(uri):
            _refuse_unknown(asked, kind, uri)
            return kind.open(uri, **asked)
    raise _unknown(uri)


def _refuse_unknown(options: dict[str, Any], kind: Kind, uri: str) -> None:
    known = set(inspect.signature(kind.open).parameters) - {"uri"}
    for name in options:
        if name not in known:
            raise UsageError(f"'{mask(uri)}' takes no {name}", expected=", ".join(sorted(known)) or f"no options for {kind.form}")


def _unknown(uri: str) -> UsageError | DataError:
    forms = "; ".join(kind.form for kind in SOURCES.values())
    if "://" in uri or " ! " in uri or not uri:
        return UsageError(f"unknown source '{mask(uri)}'", expected=f"one of these forms: {forms}")
    if not Path(uri).exists():
        return DataError(f"there is no file or folder '{uri}'", expected=f"one of these forms: {forms}")
    return DataError(f"'{uri}' is neither an image nor a video by its name", expected=", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)))
