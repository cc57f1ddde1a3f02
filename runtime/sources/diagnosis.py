"""Why a stream cannot be opened: FFmpeg does not say, so the server is asked once more in plain words."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from urllib.parse import SplitResult, unquote

from finedge.errors import SystemProblem
from finedge.runtime.sources.address import ESCAPES, mask, port_of, split, without_password

ANSWER_BYTES = 65536
BUSY, LET_GO_S = 503, 0.5


def reach(uri: str, *, timeout_s: float) -> None:
    """Connect to the host of `uri` and leave again.

    Raises:
        SystemProblem: the name is unknown, there is no route, nothing listens there, or no answer came within `timeout_s`.
    """
    _dial(split(uri), uri, timeout_s=timeout_s).close()


def why_not_rtsp(uri: str, *, timeout_s: float) -> SystemProblem:
    """Return what keeps an RTSP stream from opening, by asking for its description."""
    parts = split(uri)
    try:
        status, head, body = _describe(parts, uri, timeout_s=timeout_s)
        if status == BUSY:  # with the attempt that just failed: it lets go in a moment
            time.sleep(LET_GO_S)
            status, head, body = _describe(parts, uri, timeout_s=timeout_s)
    except SystemProblem as problem:
        return problem
    except (OSError, ValueError) as error:
        return SystemProblem(f"{mask(uri)} does not speak RTSP: {error or type(error).__name__}", expected="an RTSP server", fix="check the port (usually 554)")
    if status != 200:
        return _refused(uri, parts, status=status, said=head.splitlines()[0])
    video = body.partition("m=video")[2]
    if not video:
        return SystemProblem(f"{mask(uri)} has no video", expected="a stream with H.264, H.265 or MJPEG", fix="choose another stream of the camera")
    codecs = re.findall(r"a=rtpmap:\d+ ([\w.-]+)", video.partition("m=")[0])
    return SystemProblem(
        f"{mask(uri)} answers, but its video (codec: {', '.join(codecs) or 'not named'}) gave no picture in time",
        expected="H.264, H.265 or MJPEG over TCP that plays within seconds",
        fix="set the camera to H.264; try its second stream; see whether another program plays it",
    )


def why_not_http(uri: str, *, timeout_s: float) -> SystemProblem:
    """Return what keeps an HTTP stream from opening, by asking for it."""
    parts = split(uri)
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    bare = without_password(parts)
    if parts.username is not None:
        passwords.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""), is_authenticated=True)
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
        urllib.request.HTTPSHandler(context=_unverified()),
    )
    try:
        with opener.open(bare, timeout=timeout_s) as answer:
            kind = answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        return _refused(uri, parts, status=error.code, said=f"{error.code} {error.reason}")
    except http.client.HTTPException as error:
        said = mask(str(error).strip()) or type(error).__name__
        return SystemProblem(f"{mask(uri)} gives no HTTP answer: {said}", expected="a web server", fix="check the port; write a space in the path as %20")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        return _unreachable(uri, reason if isinstance(reason, OSError) else error)
    return SystemProblem(
        f"{mask(uri)} answers with {kind}, in which FFmpeg finds no video",
        expected="MJPEG, HLS (.m3u8) or a video file",
        fix="open the address in a browser: it must show the picture itself, not a page around it",
    )


def _refused(uri: str, parts: SplitResult, *, status: int, said: str) -> SystemProblem:
    name, form = mask(uri), f"{parts.scheme}://user:password@{parts.hostname}/..."
    if status == 401 and parts.username is None:
        return SystemProblem(f"{name} wants a user and a password (401)", expected=form, fix=ESCAPES)
    if status in (401, 403):
        return SystemProblem(f"{name} does not accept this user and password ({status})", expected=form, fix=f"check both; {ESCAPES}")
    if status == 404:
        return SystemProblem(f"{name} does not exist on this server (404)", expected="the stream's path", fix="look it up in the camera's manual or ONVIF page")
    return SystemProblem(f"{name} was refused: {said}", expected="200 OK", fix="503 or 453: too many viewers, close one; else see the camera's log")


def _unreachable(uri: str, error: Exception) -> SystemProblem:
    parts = split(uri)
    place = f"{parts.hostname} port {port_of(parts)}"
    if isinstance(error, socket.gaierror):
        return SystemProblem(f"{mask(uri)}: the name {parts.hostname} is unknown", expected="a host", fix="check the spelling; try the IP address")
    if isinstance(error, ConnectionRefusedError):
        return SystemProblem(f"{mask(uri)}: nothing listens at {place}", expected="a running server", fix="start it; check the port")
    if isinstance(error, TimeoutError):
        return SystemProblem(f"{mask(uri)}: no answer from {place}", expected="an answer", fix=f"check power and cable: ping {parts.hostname}")
    return SystemProblem(f"{mask(uri)}: no way to {place}: {error}", expected="a reachable host", fix=f"check the network: ip route get {parts.hostname}")


def _dial(parts: SplitResult, uri: str, *, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((str(parts.hostname), port_of(parts)), timeout_s)
    except OSError as error:
        raise _unreachable(uri, error) from error


def _describe(parts: SplitResult, uri: str, *, timeout_s: float) -> tuple[int, str, str]:
    """Return status, head and body of the answer to DESCRIBE; asked again with the password where the first answer wants one."""
    bare = without_password(parts)
    with _dial(parts, uri, timeout_s=timeout_s) as dialled:
        connection = _unverified().wrap_socket(dialled, server_hostname=parts.hostname) if parts.scheme == "rtsps" else dialled
        status, head, body = _ask(connection, bare, authorization="")
        if status == 401 and parts.username is not None:
            status, head, body = _ask(connection, bare, authorization=_authorization(parts, bare, challenge=head))
    return status, head, body


def _ask(connection: socket.socket, uri: str, *, authorization: str) -> tuple[int, str, str]:
    lines = [f"DESCRIBE {uri} RTSP/1.0", f"CSeq: {2 if authorization else 1}", "Accept: application/sdp", *([authorization] if authorization else [])]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    data = b""
    while b"\r\n\r\n" not in data and len(data) < ANSWER_BYTES:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    while length and len(body) < min(int(length[1]), ANSWER_BYTES):
        body += _more(connection)
    answer = re.match(rb"RTSP/1\.\d (\d{3})", head)
    if answer is None:
        raise ValueError("its answer is of another protocol")
    return int(answer[1]), head.decode(errors="replace"), body.decode(errors="replace")


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(4096)
    if not data:
        raise ValueError("it hung up")
    return data


def _authorization(parts: SplitResult, uri: str, *, challenge: str) -> str:
    """Return the header that answers a challenge: RFC 2617 without qop, which is what RTSP servers use, or Basic."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    digest = re.search(r"(?im)^www-authenticate: *digest (.*)$", challenge)
    if digest is None:
        return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    said = dict(re.findall(r'(\w+)="([^"]*)"', digest[1]))
    realm, nonce = said.get("realm", ""), said.get("nonce", "")
    response = _md5(f"{_md5(f'{user}:{realm}:{password}')}:{nonce}:{_md5(f'DESCRIBE:{uri}')}")
    return f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", response="{response}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _unverified() -> ssl.SSLContext:
    """Cameras sign their own certificates, and FFmpeg does not look at them either."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
