"""Real servers on loopback: RTSP by GStreamer with the system's Python, HTTP by Python's own."""

from __future__ import annotations

import base64
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from finedge.runtime.sources import gstreamer

SYSTEM_PYTHON = Path("/usr/bin/python3")
SCRIPT = Path(__file__).with_name("rtsp_server.py")
SERVER_CHECK = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst
Gst.init(None)
assert Gst.ElementFactory.find("x264enc")
"""
SOON_S = 20.0  # the longest wait of a test; never reached when the code is right


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, f"not so within {SOON_S:g} s"
        time.sleep(0.005)


class RtspServer:
    """An RTSP server that can be killed and started again at the same port."""

    def __init__(self, *options: str) -> None:
        self._options, self.port = options, 0
        self.start()

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/cam"

    def start(self, *options: str) -> None:
        self._options = options or self._options
        command = [str(SYSTEM_PYTHON), str(SCRIPT), "--port", str(self.port), *self._options]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the RTSP server did not start: {command}"
        self.port = int(line)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def rtsp_installed() -> None:
    """Skip where no RTSP server can be started."""
    command = [SYSTEM_PYTHON, "-c", SERVER_CHECK]
    if (
        not SYSTEM_PYTHON.exists()
        or subprocess.run(command, check=False, capture_output=True).returncode
    ):
        pytest.skip("GStreamer's RTSP server is missing: the packages of tests/apt.txt")


@pytest.fixture
def serve(rtsp_installed: None) -> Iterator[Callable[..., RtspServer]]:
    """Start RTSP servers: `serve("--codec", "h265")`."""
    servers: list[RtspServer] = []

    def start(*options: str) -> RtspServer:
        servers.append(RtspServer(*options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def cam(rtsp_installed: None) -> Iterator[Callable[..., RtspServer]]:
    """A server that stays up for all tests, one for each set of options; do not kill it."""
    servers: dict[tuple[str, ...], RtspServer] = {}

    def of(*options: str) -> RtspServer:
        if options not in servers:
            servers[options] = RtspServer(*options)
        return servers[options]

    yield of
    for server in servers.values():
        server.kill()


@pytest.fixture(scope="session")
def gi_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the system's `gi` only: a venv of the same Python can load it."""
    folder = tmp_path_factory.mktemp("gi")
    system = Path("/usr/lib/python3/dist-packages/gi")
    major, minor = sys.version_info[:2]
    if not list(system.glob(f"_gi.cpython-{major}{minor}-*.so")):
        pytest.skip(f"python3-gi for Python {major}.{minor} is missing: tests/apt.txt")
    (folder / "gi").symlink_to(system)
    return str(folder)


@pytest.fixture
def gi(gi_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """GStreamer through python3-gi, as on a Jetson with the packages of its system."""
    monkeypatch.syspath_prepend(gi_path)
    gstreamer.load.cache_clear()
    gstreamer.has.cache_clear()
    if gstreamer.load() is None or not gstreamer.has("videotestsrc"):
        pytest.skip("GStreamer's plugins are missing: the packages of tests/apt.txt")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the sources log, at every level."""
    logger = logging.getLogger("finedge.runtime.sources")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # the root's handler is the same one
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)
    logger.propagate = propagate


class Web(ThreadingHTTPServer):
    """A web camera: /mjpeg, /private (with a password), /silent, and the files of a folder.

    `unplug` cuts every connection; another one at the same port is the camera that returns.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self.sockets = folder, list[socket.socket]()
        self.stopped, self.sent = threading.Event(), 0
        self.pause_s, self.cut_at = 0.02, 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        self.sockets.append(request)
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a reader may leave at any time

    def unplug(self) -> None:
        self.stopped.set()
        self.shutdown()
        for connection in self.sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


MJPEG_PART = b"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"
LOGIN = f"Basic {base64.b64encode(b'me:s3cr@t').decode()}"


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        if path == "private" and self.headers["Authorization"] != LOGIN:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="cam"')
            self.end_headers()
        elif path in ("mjpeg", "private"):
            self.stream()
        elif path == "silent":
            self.server.stopped.wait(SOON_S)
        elif (self.server.folder / path).is_file():
            self.file(self.server.folder / path)
        else:
            self.send_error(404)

    def stream(self) -> None:
        """Send grey images; each is brighter than the one before."""
        self.begin("multipart/x-mixed-replace; boundary=cut")
        while not self.server.stopped.wait(self.server.pause_s):
            image = np.full((48, 64, 3), 50 + self.server.sent % 200, np.uint8)
            jpeg = cv2.imencode(".jpg", image)[1].tobytes()
            self.wfile.write(MJPEG_PART % (len(jpeg), jpeg))
            self.server.sent += 1

    def file(self, path: Path) -> None:
        data = path.read_bytes()
        kind = "text/html" if path.suffix == ".html" else "application/octet-stream"
        self.begin(kind, length=len(data))
        self.wfile.write(data[: self.server.cut_at or None])

    def begin(self, kind: str, *, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Start web servers that show `tmp_path`: `web(port=...)`."""
    servers: list[Web] = []

    def start(*, port: int = 0) -> Web:
        servers.append(Web(tmp_path, port=port))
        return servers[-1]

    yield start
    for server in servers:
        if not server.stopped.is_set():
            server.unplug()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for a condition."""
    return wait_until


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a server that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]
