"""An RTSP server on loopback for the tests. The system's Python runs it, for GStreamer's bindings.

It prints its port once it listens. It has one mount, /cam: a plain colour, encoded live. It ends
when it is killed, or when stdin closes.
"""

from __future__ import annotations

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

FAST = "tune=zerolatency speed-preset=ultrafast key-int-max=10"
BASELINE = "video/x-h264,profile=baseline"
ENCODERS = {
    "h264": f"x264enc {FAST} ! {BASELINE} ! rtph264pay name=pay0 pt=96",
    "h265": f"x265enc {FAST} ! rtph265pay name=pay0 pt=96",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}
AUDIO = "audiotestsrc is-live=true ! mulawenc ! rtppcmupay name=pay{} pt=0"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0")
    parser.add_argument("--codec", default="h264", choices=[*ENCODERS, "none"])
    parser.add_argument("--size", default="96x64")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--colour", default="0xff00a000")
    parser.add_argument("--frames", type=int, default=-1)
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--interlaced", action="store_true", help="of H.264: as analog recorders")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    options = parser.parse_args()
    server = new_server(options.port)
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(launch(options))
    factory.set_shared(True)
    if options.user:
        protect(server, factory, options)
    server.get_mount_points().add_factory("/cam", factory)
    serve(server)


def new_server(port: str) -> GstRtspServer.RTSPServer:
    """Return a server for a port of loopback; "0" lets the system choose."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    return server


def serve(server: GstRtspServer.RTSPServer) -> None:
    """Listen, print the port, and answer until stdin closes."""
    if not server.attach(None):
        sys.exit(f"port {server.get_service()} is taken")
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


def launch(options: argparse.Namespace) -> str:
    width, height = options.size.split("x")
    if options.codec == "none":
        return f"( {AUDIO.format(0)} )"
    size, rate = f"width={width},height={height}", f"framerate={options.fps}/1"
    scene = f"pattern=solid-color foreground-color={options.colour} num-buffers={options.frames}"
    caps = f"video/x-raw,format=I420,{size},{rate}"
    encoder = ENCODERS[options.codec]
    if options.interlaced:
        caps += ",interlace-mode=interleaved"
        encoder = encoder.replace(f" ! {BASELINE}", " interlaced=true")
    video = f"videotestsrc is-live=true {scene} ! {caps} ! {encoder}"
    return f"( {video} {AUDIO.format(1) if options.audio else ''} )"


def protect(
    server: GstRtspServer.RTSPServer,
    factory: GstRtspServer.RTSPMediaFactory,
    options: argparse.Namespace,
) -> None:
    auth = GstRtspServer.RTSPAuth.new()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
