"""Sources: where frames come from. One string, the address, names a source.

This room turns the address of a camera, a stream or a file into frames. It may import the contract
(`finedge.*`: errors, image, data, secret, synthetic), `runtime.machine.packages`, numpy and OpenCV.
PyAV and GStreamer's python3-gi are loaded only where a source needs them. It never imports
`runtime.stream`, a sink or a command.
`runtime.stream`, `runtime.benchmark`, `runtime.explain`, `jetson.doctor` and the soak tests call
it.

From an address to frames:

1. `open_source` takes the first kind in `SOURCES` that claims the address.
2. That kind opens it. Files become a `Source` at once. A camera or a stream becomes a `Connection`
   (`read`, `close`), and `ReconnectingSource` makes a `Source` of one connection after the other.
3. A `Source` is iterated. Each `Frame` is uint8 [H, W, 3] RGB with the moment of its capture.

| kind | module | what reads it |
| --- | --- | --- |
| test | `rendered_scene` | a rendered scene that moves; needs no camera |
| camera | `camera` | OpenCV's V4L2, or GStreamer with `via="gstreamer"` |
| csi | `camera`, `gst_text` | GStreamer's nvarguscamerasrc on a Jetson |
| rtsp | `rtsp_source` | FFmpeg, or GStreamer where it decodes in hardware |
| http | `http_source`, `web_camera` | MJPEG and still images: this package; the rest: FFmpeg |
| gstreamer | `gstreamer`, `gst_pipeline` | python3-gi, else an OpenCV built with GStreamer |
| glob, folder, image | `files` | `finedge.image` |
| video | `video`, `container` | FFmpeg |

FFmpeg is always PyAV's. What several of them share: `ffmpeg`, `decoder` and `ffmpeg_stream` (files
and streams that FFmpeg opens), `opencv` (OpenCV captures), `client`, `tcp`, `login` and `multipart`
(HTTP and RTSP), `diagnosis` (why a stream cannot be opened), `capture_time`, `geometry`,
`deadline`, `guard` and `worker` (releasing readers, and Ctrl-C, while native code runs), `address`,
`base` (the types).
"""

from __future__ import annotations

import glob
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from finedge.errors import DataError, UsageError
from finedge.image import SUFFIXES as IMAGE_SUFFIXES
from finedge.image import is_image
from finedge.redact import learn
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import (
    CAMERA_OPTIONS,
    DEFAULT_CAPTURE,
    CaptureOptions,
    Frame,
    Source,
    SourceInfo,
)
from finedge.runtime.sources.camera import CSI_FORM, open_camera, open_csi
from finedge.runtime.sources.camera import FORMS as CAMERA_FORMS
from finedge.runtime.sources.files import open_folder, open_glob, open_image
from finedge.runtime.sources.gstreamer import open_pipeline
from finedge.runtime.sources.http_source import open_http
from finedge.runtime.sources.rendered_scene import open_scene
from finedge.runtime.sources.rtsp_source import open_rtsp
from finedge.runtime.sources.video import SUFFIXES as VIDEO_SUFFIXES
from finedge.runtime.sources.video import open_video

__all__ = [
    "SOURCES",
    "CaptureOptions",
    "Frame",
    "Source",
    "SourceInfo",
    "SourceKind",
    "mask",
    "open_source",
]


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Attributes:
        form: how its address is written; for error texts.
        claims: whether an address is of this kind.
        open: opens an address. Its keyword parameters are the options of the kind. It has a
            parameter `capture` where there are `capture_options`.
        capture_options: the fields of `CaptureOptions` that it supports.
    """

    form: str
    claims: Callable[[str], bool]
    open: Callable[..., Source]
    capture_options: frozenset[str] = frozenset()


def _is_glob(uri: str) -> bool:
    return glob.has_magic(uri) and not Path(uri).exists()


def _is_pipeline(uri: str) -> bool:
    return uri.rpartition("!")[2].split()[:1] == ["appsink"]


# The first kind that claims an address opens it.
SOURCES: dict[str, SourceKind] = {
    "test": SourceKind("test://", lambda uri: uri.startswith("test://"), open_scene),
    "camera": SourceKind(
        "/dev/video0, v4l2:///dev/video0, or its number 0",
        lambda uri: CAMERA_FORMS.fullmatch(uri) is not None,
        open_camera,
        CAMERA_OPTIONS,
    ),
    "csi": SourceKind(CSI_FORM, lambda uri: uri.startswith("csi://"), open_csi, CAMERA_OPTIONS),
    "rtsp": SourceKind(
        "rtsp://user:password@host:554/path or rtsps://",
        lambda uri: uri.startswith(("rtsp://", "rtsps://")),
        open_rtsp,
        CAMERA_OPTIONS | {"latency_ms"},
    ),
    "http": SourceKind(
        "http://host/path or https:// (MJPEG, a still image, HLS, a video file)",
        lambda uri: uri.startswith(("http://", "https://")),
        open_http,
        CAMERA_OPTIONS,
    ),
    "gstreamer": SourceKind(
        "'v4l2src ! appsink' (a GStreamer pipeline that ends in appsink)",
        _is_pipeline,
        open_pipeline,
    ),
    "glob": SourceKind(
        "'photos/*.jpg' (in quotes)", lambda uri: "://" not in uri and _is_glob(uri), open_glob
    ),
    "folder": SourceKind("photos/", lambda uri: uri != "" and Path(uri).is_dir(), open_folder),
    "image": SourceKind(
        "photo.jpg", lambda uri: "://" not in uri and is_image(Path(uri)), open_image
    ),
    "video": SourceKind(
        "clip.mp4",
        lambda uri: "://" not in uri and Path(uri).suffix.lower() in VIDEO_SUFFIXES,
        open_video,
    ),
}


def open_source(uri: str, *, capture: CaptureOptions = DEFAULT_CAPTURE, **options: Any) -> Source:
    """Open the source that an address names.

    Examples:
        >>> from finedge import open_source
        >>> with open_source("test://", fps=10) as source:
        ...     frame = next(iter(source))
        >>> source.info.kind, frame.index, frame.image.shape
        ('test', 0, (480, 640, 3))

    Args:
        uri: one of the forms of `SOURCES`.
        capture: size, rate, flip and latency. A kind that does not support one of them refuses it.
        options: those of the kind. Live kinds have `reconnect`, `timeout_s` and `via`; test:// has
            `fps` and `seed`; folders and globs have `max_unreadable`.

    Raises:
        UsageError: no kind has this form, or the kind does not take an option.
        DataError: a file that is missing, or is neither an image nor a video.
        SystemProblem: no such camera, or a stream that cannot be opened.
    """
    learn(uri)
    if "\0" in uri:
        raise UsageError(f"'{mask(uri)}' holds a NUL character", expected="a source without it")
    uri = _normalized(uri)
    try:
        kind = next((kind for kind in SOURCES.values() if kind.claims(uri)), None)
        if kind is None:
            raise _unknown(uri)
        _refuse_unknown(capture, options, kind=kind, uri=uri)
        # A kind without capture options may still have an option of that name: `fps` of test://.
        changes = {"capture": capture} if kind.capture_options else capture.changes()
        return kind.open(uri, **changes, **options)
    except OSError as error:  # the path is too long, or this user may not look at it
        raise DataError(
            f"cannot read '{mask(uri)}': {error.strerror or error}",
            expected="a readable file or folder; a GStreamer pipeline ends in appsink",
        ) from error


def _normalized(uri: str) -> str:
    """Return an address with its scheme in lower case, and the path of a file:// address."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not scheme.isalnum() or " ! " in uri:
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


def _refuse_unknown(
    capture: CaptureOptions, options: dict[str, Any], *, kind: SourceKind, uri: str
) -> None:
    own_options = set(inspect.signature(kind.open).parameters) - {"uri", "capture"}
    supported = own_options | kind.capture_options
    unknown = [name for name in capture.changes() if name not in supported]
    unknown += [name for name in options if name not in own_options]
    if unknown:
        raise UsageError(
            f"'{mask(uri)}' takes no {unknown[0]}",
            expected=", ".join(sorted(supported)) or f"no options for {kind.form}",
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
