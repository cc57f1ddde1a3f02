"""The client of stream servers, HTTP and RTSP: one deadline, redirects, logins.

A password goes only where a server asks for it, and to the origin that it was written for:
`finedge.runtime.sources.login`.
"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from finedge.runtime.sources.address import split, without_password
from finedge.runtime.sources.dial import Deadline, Line, dial
from finedge.runtime.sources.login import authorization, may_log_in

PIECE = 1 << 20  # bytes; one look takes what has come, up to this
MOST_BYTES = 1 << 16  # of the first line, or of a description
SHOWN = 200  # characters of an answer in an error
MOST_REDIRECTS = 5


class NotUnderstood(ValueError):
    """A server speaks, but another protocol; or hangs up."""


class Answer:
    """What a web server answers to a GET; `close`, from any thread, ends a waiting `more`.

    Attributes:
        status: of HTTP.
        line: status and reason, as `404 Not Found`.
        kind: of the content, without parameters; lower case.
        boundary: of a multipart answer, without its two dashes; empty where none is named.
        length: of the body in bytes, or None.
    """

    def __init__(self, response: http.client.HTTPResponse, line: Line) -> None:
        self._response, self._line = response, line
        self.headers: Message = response.headers
        self.status, self.line = response.status, f"{response.status} {response.reason}"[:SHOWN]
        self.kind = self.headers.get_content_type()
        boundary = str(self.headers.get_param("boundary") or "")
        self.boundary = boundary.strip().removeprefix("--")
        self.length: int | None = response.length

    def more(self) -> bytes:
        """Return what has come since, waiting for something; nothing at the end.

        Raises:
            OSError: the connection broke, or nothing came in time.
        """
        try:
            return self._response.read1(PIECE)
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    def each_wait(self, seconds: float) -> None:
        """Bound each wait within the body by `seconds`, in place of the deadline."""
        self._line.each_wait(seconds)

    def close(self) -> None:
        """End the connection."""
        self._line.cut()


@dataclass(frozen=True)
class Description:
    """What an RTSP server answers: the status, the first line, headers, and the stream's SDP."""

    status: int
    line: str
    headers: Message
    body: str


def get(uri: str, *, deadline: Deadline, wait_s: float | None = None) -> Answer:
    """Ask a web server for an address, through its redirects; the body is read by `more`.

    Args:
        uri: http or https, with user and password where the server wants them.
        deadline: of all up to the body.
        wait_s: the longest wait within the body; None: the deadline holds for it too.

    Raises:
        OSError: no connection, or no whole answer in time.
        NotUnderstood: it does not speak HTTP, or it redirects for ever.
        UsageError: it redirects to what is no address.
    """
    login = parts = split(uri)
    for _ in range(MOST_REDIRECTS + 1):
        answer = _get(parts, login, deadline=deadline)
        to = str(answer.headers.get("location") or "") if 300 <= answer.status < 400 else ""
        if not to:
            if wait_s is not None:
                answer.each_wait(wait_s)
            return answer
        answer.close()
        parts = _redirected(parts, to)
    raise NotUnderstood(f"it leads from one address to the next, more than {MOST_REDIRECTS} times")


def ask(uri: str, *, timeout_s: float, open_timeout_s: float) -> Answer:
    """Ask for a body: `open_timeout_s` is for all before it, `timeout_s` for each wait within it.

    Raises:
        OSError: no answer, or one that refuses.
        ValueError: it is none of HTTP, or a redirect leads to no address.
    """
    answer = get(uri, deadline=Deadline(open_timeout_s), wait_s=timeout_s)
    if not 200 <= answer.status < 300:
        answer.close()
        raise ConnectionError(f"it answers {answer.line}")
    return answer


def describe(uri: str, *, deadline: Deadline) -> Description:
    """Ask an RTSP server for a stream's description.

    Raises:
        OSError: no connection, or no whole answer in time.
        NotUnderstood: it does not speak RTSP.
    """
    parts = split(uri)
    bare = without_password(parts)
    with dial(parts, deadline=deadline) as line:
        answer = _describe(line, bare, number=1)
        if answer.status == 401 and parts.username is not None:
            login = authorization(parts, answer.headers, method="DESCRIBE", target=bare)
            answer = _describe(line, bare, number=2, login=login)
    return answer


def _get(parts: SplitResult, login: SplitResult, *, deadline: Deadline) -> Answer:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    answer = _get_once(parts, target, deadline=deadline)
    if answer.status != 401 or not may_log_in(parts, login):
        return answer
    answer.close()
    header = authorization(login, answer.headers, method="GET", target=target)
    return _get_once(parts, target, deadline=deadline, login=header)


def _redirected(parts: SplitResult, to: str) -> SplitResult:
    target = urlsplit(urljoin(without_password(parts), to))
    if target.scheme not in ("http", "https"):
        raise NotUnderstood(f"it leads to an address of another kind ({target.scheme})")
    return split(target.geturl())


def _get_once(
    parts: SplitResult,
    target: str,
    *,
    deadline: Deadline,
    login: tuple[str, ...] = (),
) -> Answer:
    if re.search(r"\s", target):
        raise NotUnderstood("a blank in the path")
    line = dial(parts, deadline=deadline)
    try:
        _send(
            line,
            f"GET {target} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "User-Agent: finedge",
            "Accept: */*",
            "Accept-Encoding: identity",
            "Cache-Control: no-cache",
            "Connection: close",
            *login,
        )
        return Answer(_response(line), line)
    except BaseException:
        line.close()
        raise


def _response(line: Line) -> http.client.HTTPResponse:
    socket_like: Any = line
    response = http.client.HTTPResponse(socket_like, method="GET")
    try:
        response.begin()
    except http.client.RemoteDisconnected:
        raise NotUnderstood("it hung up") from None
    except http.client.HTTPException as error:
        raise NotUnderstood(str(error).strip()[:SHOWN] or type(error).__name__) from error
    return response


def _describe(
    line: Line,
    uri: str,
    *,
    number: int,
    login: tuple[str, ...] = (),
) -> Description:
    _send(line, f"DESCRIBE {uri} RTSP/1.0", f"CSeq: {number}", "Accept: application/sdp", *login)
    first = line.reader.readline(MOST_BYTES).decode(errors="replace").strip()[:SHOWN]
    status = re.match(r"RTSP/\d\.\d (\d{3})", first)
    if status is None:
        raise NotUnderstood(first or "it hung up")
    try:
        headers = http.client.parse_headers(line.reader)
    except http.client.HTTPException as error:
        raise NotUnderstood(str(error)[:SHOWN]) from error
    length = str(headers.get("content-length") or "")
    size = min(int(length[:9]), MOST_BYTES) if length.isdecimal() else 0
    body = line.reader.read(size)
    if len(body) < size:
        raise NotUnderstood("it hung up")
    return Description(int(status[1]), first, headers, body.decode(errors="replace"))


def _send(line: Line, *lines: str) -> None:
    line.send(("\r\n".join(lines) + "\r\n\r\n").encode(errors="replace"))
