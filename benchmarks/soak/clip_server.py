"""RTSP cameras that play encoded clips in turn, for ever. The system's Python runs it.

    /usr/bin/python3 -m benchmarks.soak.clip_server moving.h264 still.h264 --cameras 4 --fps 15

Nothing is decoded or encoded: a camera costs next to no CPU. Camera N is /camN. Its frames come at
their rate on the clock of this process. Each camera begins at another place of the turn, so that
not all of them see birds at the same time. It prints its port, and ends when stdin closes.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer  # noqa: E402

from tests.runtime.sources.rtsp_server import new_server, serve  # noqa: E402

DELIMITER = b"\x00\x00\x00\x01\x09"  # an access unit delimiter: a frame begins
CAPS = "video/x-h264,stream-format=byte-stream,alignment=au,framerate={}/1"
LAUNCH = (
    "( appsrc name=frames is-live=true format=time do-timestamp=true caps={} "
    "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


def frames_of(path: Path) -> list[bytes]:
    """Return the access units of a raw H.264 stream."""
    _, *frames = path.read_bytes().split(DELIMITER)
    return [DELIMITER + frame for frame in frames]


def play(source: Gst.Element, frames: list[bytes], *, first: int, fps: int) -> None:
    """Push frames at their rate until the client has gone."""
    due, number = time.monotonic(), first
    while source.emit("push-buffer", Gst.Buffer.new_wrapped(frames[number])) == Gst.FlowReturn.OK:
        number = (number + 1) % len(frames)
        due += 1 / fps
        time.sleep(max(0.0, due - time.monotonic()))


def add_camera(
    server: GstRtspServer.RTSPServer, name: str, frames: list[bytes], *, first: int, fps: int
) -> None:
    """Serve the frames at /NAME; they begin when the first client comes."""

    def configure(_factory: object, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name("frames")
        words = {"first": first, "fps": fps}
        threading.Thread(target=play, args=(source, frames), kwargs=words, daemon=True).start()

    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(LAUNCH.format(CAPS.format(fps)))
    factory.set_shared(True)
    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory(f"/{name}", factory)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--port", default="0")
    options = parser.parse_args()
    server = new_server(options.port)
    frames = [frame for clip in options.clips for frame in frames_of(clip)]
    step = len(frames) // options.cameras
    for number in range(options.cameras):
        key = number * step // (2 * options.fps) * 2 * options.fps  # a key frame: one in 2 s
        add_camera(server, f"cam{number}", frames, first=key, fps=options.fps)
    serve(server)


if __name__ == "__main__":
    main()
