"""Why a stream cannot be opened. FFmpeg does not report it, so the server is asked, briefly."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable

from finedge.errors import FinedgeError, SystemProblem
from finedge.runtime.sources.address import ESCAPES, mask, port_of, split
from finedge.runtime.sources.client import ProtocolError, describe, get
from finedge.runtime.sources.deadline import Deadline
from finedge.runtime.sources.tcp import open_socket

BUSY = 503
RELEASE_S = 0.5  # a server needs a moment to release the attempt that just failed
MAX_S = 5.0  # for a whole diagnosis, whatever the time-out of the stream
OUTAGE_WAIT_S = 0.2  # in an outage: the stream itself is tried again meanwhile
OUTAGE_S = 30.0  # two diagnoses within this time belong to one outage
_inquiries: dict[str, _Inquiry] = {}


def reach(uri: str, *, timeout_s: float) -> None:
    """Connect to the host of an address and disconnect.

    Raises:
        SystemProblem: the name is unknown, there is no route, nothing listens there, or no answer
            came within `timeout_s`.
    """
    try:
        open_socket(split(uri), deadline=Deadline(timeout_s)).close()
    except OSError as error:
        raise _unreachable(uri, error) from error


def why_not_rtsp(uri: str, *, timeout_s: float) -> SystemProblem:
    """Return why an RTSP stream does not open, from the answer to a request for its description.

    It takes `timeout_s` at most, and `OUTAGE_WAIT_S` in an outage.
    """
    return _diagnose(uri, _why_not_rtsp, timeout_s=timeout_s)


def why_not_http(uri: str, *, timeout_s: float) -> SystemProblem:
    """Return why an HTTP stream does not open. It takes as long as `why_not_rtsp`."""
    return _diagnose(uri, _why_not_http, timeout_s=timeout_s)


class _Inquiry(threading.Thread):
    """One request to a server. It ends by its own deadline, whether or not anybody waits."""

    def __init__(
        self,
        uri: str,
        ask: Callable[[str, Deadline], SystemProblem],
        *,
        seconds: float,
    ) -> None:
        super().__init__(name="finedge-diagnosis", daemon=True)
        self._uri, self._ask, self._deadline = uri, ask, Deadline(seconds)
        self.started = time.monotonic()
        self.problem: SystemProblem | None = None
        self.start()

    def run(self) -> None:
        try:
            self.problem = self._ask(self._uri, self._deadline)
        except (FinedgeError, OSError, ValueError) as error:  # of a redirect
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.problem = SystemProblem(f"{mask(self._uri)} leads to no address: {reason}")


def _diagnose(
    uri: str,
    ask: Callable[[str, Deadline], SystemProblem],
    *,
    timeout_s: float,
) -> SystemProblem:
    last, seconds = _inquiries.get(uri), min(timeout_s, MAX_S)
    outage = last is not None and time.monotonic() - last.started < OUTAGE_S
    running = last is not None and last.is_alive()
    inquiry = last if last is not None and running else _Inquiry(uri, ask, seconds=seconds)
    _inquiries[uri] = inquiry
    inquiry.join(OUTAGE_WAIT_S if outage else seconds + OUTAGE_WAIT_S)
    problem = inquiry.problem or (last.problem if last is not None and outage else None)
    return problem or SystemProblem(
        f"{mask(uri)} cannot be opened: no answer within {seconds:g} s with a reason",
        expected="a server that answers",
        fix="see the camera's log; open the address in another program",
    )


def _why_not_rtsp(uri: str, deadline: Deadline) -> SystemProblem:
    try:
        response = describe(uri, deadline=deadline)
        if response.status == BUSY:
            deadline.sleep(RELEASE_S)
            response = describe(uri, deadline=deadline)
    except (ConnectionRefusedError, socket.gaierror) as error:
        return _unreachable(uri, error)
    except (OSError, ProtocolError) as error:
        what = f"{mask(uri)} does not speak RTSP: {error or type(error).__name__}"
        return SystemProblem(what, expected="an RTSP server", fix="check the port (usually 554)")
    if response.status != 200:
        return _refused(uri, status=response.status, status_line=response.status_line)
    video = response.body.partition("m=video")[2]
    if not video:
        return SystemProblem(
            f"{mask(uri)} has no video",
            expected="a stream with H.264, H.265 or MJPEG",
            fix="choose another stream of the camera",
        )
    codecs = re.findall(r"a=rtpmap:\d+ ([\w.-]+)", video.partition("m=")[0])
    codec = f"(codec: {', '.join(codecs) or 'not named'})"
    return SystemProblem(
        f"{mask(uri)} answers, but its video {codec} gave no picture in time",
        expected="H.264, H.265 or MJPEG over TCP that plays within seconds",
        fix="set the camera to H.264; try its second stream; see whether another program plays it",
    )


def _why_not_http(uri: str, deadline: Deadline) -> SystemProblem:
    try:
        response = get(uri, deadline=deadline)
    except ProtocolError as error:
        return SystemProblem(
            f"{mask(uri)} gives no HTTP answer: {error}",
            expected="a web server",
            fix="check the port; write a space in the path as %20",
        )
    except OSError as error:
        return _unreachable(uri, error)
    response.close()
    if response.status >= 300:
        return _refused(uri, status=response.status, status_line=response.status_line)
    content_type = response.content_type if "content-type" in response.headers else "no type"
    return SystemProblem(
        f"{mask(uri)} answers with {content_type}, in which FFmpeg finds no video",
        expected="MJPEG, HLS (.m3u8) or a video file",
        fix="open the address in a browser: it must show the picture itself, not a page around it",
    )


def _refused(uri: str, *, status: int, status_line: str) -> SystemProblem:
    name, parts = mask(uri), split(uri)
    form = f"{parts.scheme}://user:password@{parts.hostname}/..."
    if status == 401 and parts.username is None:
        return SystemProblem(
            f"{name} wants a user and a password (401)", expected=form, fix=ESCAPES
        )
    if status in (401, 403):
        return SystemProblem(
            f"{name} does not accept this user and password ({status})",
            expected=form,
            fix=f"check both; {ESCAPES}",
        )
    if status == 404:
        return SystemProblem(
            f"{name} does not exist on this server (404)",
            expected="the stream's path",
            fix="look it up in the camera's manual or ONVIF page",
        )
    return SystemProblem(
        f"{name} was refused: {status_line}",
        expected="200 OK",
        fix="503 or 453: too many viewers, close one; else see the camera's log",
    )


def _unreachable(uri: str, error: Exception) -> SystemProblem:
    parts = split(uri)
    place = f"{parts.hostname} port {port_of(parts)}"
    if isinstance(error, socket.gaierror):
        return SystemProblem(
            f"{mask(uri)}: the name {parts.hostname} is unknown",
            expected="a host",
            fix="check the spelling; try the IP address",
        )
    if isinstance(error, ConnectionRefusedError):
        return SystemProblem(
            f"{mask(uri)}: nothing listens at {place}",
            expected="a running server",
            fix="start it; check the port",
        )
    if isinstance(error, TimeoutError):
        return SystemProblem(
            f"{mask(uri)}: no answer from {place}",
            expected="an answer",
            fix=f"check power and cable: ping {parts.hostname}",
        )
    return SystemProblem(
        f"{mask(uri)}: no way to {place}: {error}",
        expected="a reachable host",
        fix=f"check the network: ip route get {parts.hostname}",
    )
