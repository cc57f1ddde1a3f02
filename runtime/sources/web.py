"""Asking a web server for what it shows, piece by piece, so that others can end the asking."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import unquote

from finedge.runtime.sources.address import split, without_password

PIECE = 1 << 20  # bytes; one look takes what has come, up to this
NO_CACHE = {"Cache-Control": "no-cache", "Accept": "*/*", "User-Agent": "finedge"}


class Answer:
    """What a server answers to a GET; `close`, from any thread, ends a waiting `more`.

    Attributes:
        kind: of the content, without parameters; lower case.
        boundary: of a multipart answer, without its two dashes; empty where none is named.
        length: of the body in bytes, or None.
    """

    def __init__(self, response: Any, line: _Line) -> None:
        self._response, self._line = response, line
        headers = response.headers
        self.kind = str(headers.get_content_type())
        self.boundary = str(headers.get_param("boundary") or "").strip().removeprefix("--")
        length = headers.get("Content-Length") or ""
        self.length = int(length) if length.isdecimal() else None

    def more(self) -> bytes:
        """Return what has come since, waiting for something; nothing at the end.

        Raises:
            OSError: the connection broke, or nothing came in the time-out.
        """
        try:
            return bytes(self._response.read1(PIECE))
        except (
            http.client.HTTPException,
            ValueError,
            AttributeError,
        ) as error:  # the last two: closed meanwhile
            raise ConnectionError(str(error) or type(error).__name__) from error

    def close(self) -> None:
        """End the connection."""
        self._line.cut()


class _Line:
    """The sockets of one question, also after redirections, to cut while a thread waits in one."""

    def __init__(self) -> None:
        self._sockets, self._cut = list[socket.socket](), False
        self._lock = threading.Lock()

    def add(self, connected: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connected)
            if self._cut:
                _end(connected)

    def cut(self) -> None:
        with self._lock:
            self._cut = True
            for connected in self._sockets:
                _end(connected)


def ask(uri: str, *, timeout_s: float, open_timeout_s: float) -> Answer:
    """Ask for `uri`, with its user and password if they are wanted; redirections are followed.

    `timeout_s` is for each wait within the body, `open_timeout_s` for all up to its first byte.

    Raises:
        OSError: no answer, or one that refuses (`urllib.error.HTTPError`).
        http.client.HTTPException: it is none of HTTP.
        ValueError: a redirection leads to no address.
    """
    line = _Line()
    timer = threading.Timer(open_timeout_s, line.cut)
    timer.daemon = True
    timer.start()
    try:
        request = urllib.request.Request(without_password(split(uri)), headers=NO_CACHE)
        return Answer(_opener(uri, line).open(request, timeout=timeout_s), line)
    finally:
        timer.cancel()


def unverified() -> ssl.SSLContext:
    """Cameras sign their own certificates, and FFmpeg does not look at them either."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(_noted, http.client.HTTPConnection, self._line), req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def https_open(self, req: urllib.request.Request) -> Any:
        made = partial(_noted, http.client.HTTPSConnection, self._line, context=unverified())
        return self.do_open(made, req)


def _noted(make: Callable[..., Any], line: _Line, host: str, **options: Any) -> Any:
    """Make a connection that tells its socket to `line` once it has one."""
    connection = make(host, **options)
    connect = connection.connect

    def noted() -> None:
        connect()
        line.add(connection.sock)

    connection.connect = noted
    return connection


def _opener(uri: str, line: _Line) -> urllib.request.OpenerDirector:
    parts = split(uri)
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        passwords.add_password(None, without_password(parts), user, password, is_authenticated=True)
    return urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
        _Plain(line),
        _Secure(line),
    )


def _end(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
