"""A client of HTTP and RTSP servers with one deadline, redirects and logins.

A password is sent only where a server asks for it, and only to the origin that it was written for:
see `finedge.runtime.sources.login`.
"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from finedge.runtime.sources.address import split, without_password
from finedge.runtime.sources.deadline import Deadline
from finedge.runtime.sources.login import authorization, may_log_in
from finedge.runtime.sources.tcp import TcpConnection, connect

MAX_READ_BYTES = 1 << 20  # one read returns what has come, up to this
MAX_TEXT_BYTES = 1 << 16  # of a status line, or of a description
MAX_SHOWN = 200  # characters of an answer in an error text
MAX_REDIRECTS = 5


class ProtocolError(ValueError):
    """A server speaks another protocol, or hangs up."""


class HttpResponse:
    """The answer of a web server to a GET. `close` may be called from any thread.

    Attributes:
        status: of HTTP.
        status_line: status and reason, as `404 Not Found`.
        headers: of the answer.
        content_type: without parameters; lower case.
        boundary: of a multipart answer, without its two dashes; empty where none is named.
        length: of the body in bytes, or None.
    """

    def __init__(self, response: http.client.HTTPResponse, connection: TcpConnection) -> None:
        self._response, self._connection = response, connection
        self.status = response.status
        self.status_line = f"{response.status} {response.reason}"[:MAX_SHOWN]
        self.headers: Message = response.headers
        self.content_type = self.headers.get_content_type()
        boundary = str(self.headers.get_param("boundary") or "")
        self.boundary = boundary.strip().removeprefix("--")
        self.length: int | None = response.length

    def read_some(self) -> bytes:
        """Wait for bytes of the body and return those that came; nothing at the end.

        Raises:
            OSError: the connection broke, or nothing came in time.
        """
        try:
            return self._response.read1(MAX_READ_BYTES)
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    def read_all(self, *, max_bytes: int, timeout_s: float) -> bytes:
        """Return the body: up to its length, or to the end of the connection.

        Raises:
            OSError: the connection broke, or nothing came in time.
            ValueError: the body is longer than `max_bytes`, or takes longer than `timeout_s`.
        """
        body, deadline = bytearray(), Deadline(timeout_s)
        while (self.length is None or len(body) < self.length) and (data := self.read_some()):
            body += data
            if len(body) > max_bytes or deadline.passed:
                raise ValueError(f"its picture has no end: {len(body)} bytes in {timeout_s:g} s")
        return bytes(body)

    def limit_each_wait(self, seconds: float) -> None:
        """Bound each wait within the body by `seconds`, in place of the deadline."""
        self._connection.limit_each_wait(seconds)

    def close(self) -> None:
        """End the connection, and with it a read that waits."""
        self._connection.cut()


@dataclass(frozen=True)
class RtspResponse:
    """The answer of an RTSP server. `body` of a description is the stream's SDP."""

    status: int
    status_line: str
    headers: Message
    body: str


def get(uri: str, *, deadline: Deadline) -> HttpResponse:
    """Request an address of a web server and follow its redirects. The body is not read yet.

    Args:
        uri: http or https, with user and password where the server requires them.
        deadline: of everything, until `limit_each_wait` replaces it.

    Raises:
        OSError: no connection, or no whole answer in time.
        ProtocolError: the server does not speak HTTP, or it redirects for ever.
        UsageError: it redirects to what is not an address.
    """
    login = parts = split(uri)
    for _ in range(MAX_REDIRECTS + 1):
        response = _get_with_login(parts, login, deadline=deadline)
        is_redirect = 300 <= response.status < 400
        location = str(response.headers.get("location") or "") if is_redirect else ""
        if not location:
            return response
        response.close()
        parts = _redirect_target(parts, location)
    raise ProtocolError(f"it leads from one address to the next, more than {MAX_REDIRECTS} times")


def get_body(uri: str, *, timeout_s: float, open_timeout_s: float) -> HttpResponse:
    """Request an address, check that the status is 2xx, and return the answer at its body.

    Args:
        uri: as of `get`.
        timeout_s: the longest wait within the body.
        open_timeout_s: for everything before the body.

    Raises:
        OSError: no answer, or one that refuses.
        ValueError: the server does not speak HTTP, or a redirect leads to no address.
    """
    response = get(uri, deadline=Deadline(open_timeout_s))
    response.limit_each_wait(timeout_s)
    if not 200 <= response.status < 300:
        response.close()
        raise ConnectionError(f"it answers {response.status_line}")
    return response


def describe(uri: str, *, deadline: Deadline) -> RtspResponse:
    """Request the description of a stream from an RTSP server.

    Raises:
        OSError: no connection, or no whole answer in time.
        ProtocolError: the server does not speak RTSP.
    """
    parts = split(uri)
    target = without_password(parts)
    with connect(parts, deadline=deadline) as connection:
        response = _describe(connection, target, number=1)
        if response.status == 401 and parts.username is not None:
            login = authorization(parts, response.headers, method="DESCRIBE", target=target)
            response = _describe(connection, target, number=2, login=login)
    return response


def _get_with_login(parts: SplitResult, login: SplitResult, *, deadline: Deadline) -> HttpResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    response = _get(parts, target, deadline=deadline)
    if response.status != 401 or not may_log_in(parts, login):
        return response
    response.close()
    header = authorization(login, response.headers, method="GET", target=target)
    return _get(parts, target, deadline=deadline, login=header)


def _redirect_target(parts: SplitResult, location: str) -> SplitResult:
    target = urlsplit(urljoin(without_password(parts), location))
    if target.scheme not in ("http", "https"):
        raise ProtocolError(f"it leads to an address of another kind ({target.scheme})")
    return split(target.geturl())


def _get(
    parts: SplitResult,
    target: str,
    *,
    deadline: Deadline,
    login: tuple[str, ...] = (),
) -> HttpResponse:
    if re.search(r"\s", target):
        raise ProtocolError("a blank in the path")
    connection = connect(parts, deadline=deadline)
    try:
        _send(
            connection,
            f"GET {target} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "User-Agent: finedge",
            "Accept: */*",
            "Accept-Encoding: identity",
            "Cache-Control: no-cache",
            "Connection: close",
            *login,
        )
        return HttpResponse(_read_http_head(connection), connection)
    except BaseException:
        connection.close()
        raise


def _read_http_head(connection: TcpConnection) -> http.client.HTTPResponse:
    socket_like: Any = connection
    response = http.client.HTTPResponse(socket_like, method="GET")
    try:
        response.begin()
    except http.client.RemoteDisconnected:
        raise ProtocolError("it hung up") from None
    except http.client.HTTPException as error:
        raise ProtocolError(str(error).strip()[:MAX_SHOWN] or type(error).__name__) from error
    return response


def _describe(
    connection: TcpConnection,
    target: str,
    *,
    number: int,
    login: tuple[str, ...] = (),
) -> RtspResponse:
    request = f"DESCRIBE {target} RTSP/1.0"
    _send(connection, request, f"CSeq: {number}", "Accept: application/sdp", *login)
    reader = connection.reader
    line = reader.readline(MAX_TEXT_BYTES).decode(errors="replace").strip()[:MAX_SHOWN]
    status = re.match(r"RTSP/\d\.\d (\d{3})", line)
    if status is None:
        raise ProtocolError(line or "it hung up")
    try:
        headers = http.client.parse_headers(reader)
    except http.client.HTTPException as error:
        raise ProtocolError(str(error)[:MAX_SHOWN]) from error
    length = str(headers.get("content-length") or "")
    size = min(int(length[:9]), MAX_TEXT_BYTES) if length.isdecimal() else 0
    body = reader.read(size)
    if len(body) < size:
        raise ProtocolError("it hung up")
    return RtspResponse(int(status[1]), line, headers, body.decode(errors="replace"))


def _send(connection: TcpConnection, *lines: str) -> None:
    connection.send(("\r\n".join(lines) + "\r\n\r\n").encode(errors="replace"))
