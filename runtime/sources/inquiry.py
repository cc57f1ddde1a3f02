"""Questions to a server with one deadline for all of it: name, connection, TLS, redirects, passwords, every byte of the answer."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from finedge.runtime.sources.address import port_of, split, without_password
from finedge.secret import basic, learn_secret

ANSWER_BYTES = 65536
MOST_REDIRECTS = 5
_lookups: dict[tuple[str, int], _Lookup] = {}


class Deadline:
    """A moment after which every wait ends."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._at = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds until then.

        Raises:
            TimeoutError: it is past.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole answer within {self.seconds:g} s")
        return left

    def sleep(self, seconds: float) -> None:
        """Wait, but not past it."""
        time.sleep(min(seconds, self.left()))


@dataclass(frozen=True)
class Said:
    """What a server answered: the status, the first line, header lines, and of RTSP the body."""

    status: int
    line: str
    head: str
    body: str

    def header(self, name: str) -> str:
        """Return a header's first value, or ""."""
        found = re.search(rf"(?im)^{name}:[ \t]*([^\r\n]*)", self.head)
        return found[1].strip() if found else ""


class NotUnderstood(ValueError):
    """A server speaks, but another protocol; or hangs up."""


def describe(uri: str, *, deadline: Deadline) -> Said:
    """Ask an RTSP server for a stream's description; with the password only where it asks for one.

    Raises:
        OSError: no connection, or no whole answer in time.
        NotUnderstood: it does not speak RTSP.
    """
    parts = split(uri)
    bare = without_password(parts)
    with _dialled(parts, deadline=deadline) as connection:
        said = _ask(connection, _description(bare, 1, ""), protocol="RTSP", deadline=deadline)
        if said.status == 401 and parts.username is not None:
            answer = _authorization(parts, said, method="DESCRIBE", target=bare)
            said = _ask(connection, _description(bare, 2, answer), protocol="RTSP", deadline=deadline)
    return said


def get(uri: str, *, deadline: Deadline) -> Said:
    """Ask a web server for an address, through its redirects; the body is not read.

    Raises:
        OSError: no connection, or no whole answer in time.
        NotUnderstood: it does not speak HTTP, or it redirects for ever.
    """
    parts = split(uri)
    login = parts
    for _ in range(MOST_REDIRECTS + 1):
        said = _get(parts, "", deadline=deadline)
        if said.status == 401 and login.username is not None and parts.hostname == login.hostname:
            answer = _authorization(login, said, method="GET", target=_target(parts))
            said = _get(parts, answer, deadline=deadline)
        to = said.header("location") if 300 <= said.status < 400 else ""
        if not to:
            return said
        found = urlsplit(urljoin(without_password(parts), to))
        if found.scheme not in ("http", "https"):
            raise NotUnderstood(f"it leads to an address of another kind ({found.scheme})")
        parts = split(found.geturl())
    raise NotUnderstood(f"it leads from one address to the next, more than {MOST_REDIRECTS} times")


def connected(parts: SplitResult, *, deadline: Deadline) -> socket.socket:
    """Connect to the host of an address.

    Raises:
        OSError: no name, no route, nothing that listens, or no answer in time.
    """
    error: OSError = OSError("the name has no address")
    for family, address in _resolve(str(parts.hostname), port_of(parts), deadline=deadline):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(deadline.left())
            connection.connect(address)
        except OSError as failed:
            connection.close()
            error = failed
        else:
            return connection
    raise error


def _dialled(parts: SplitResult, *, deadline: Deadline) -> socket.socket:
    """Connect, over TLS where the scheme says so."""
    connection = connected(parts, deadline=deadline)
    if parts.scheme not in ("rtsps", "https"):
        return connection
    try:
        connection.settimeout(deadline.left())  # of the handshake as a whole
        return _unverified().wrap_socket(connection, server_hostname=parts.hostname)
    except BaseException:
        connection.close()
        raise


class _Lookup(threading.Thread):
    """The system's resolver has no time-out of its own: it is waited for as long as there is time."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name="finedge-lookup", daemon=True)
        self._where = host, port
        self.found: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = []
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM)
            self.found = [(family, where) for family, _, _, _, where in found]
        except OSError as error:
            self.error = error
        except UnicodeError:
            self.error = socket.gaierror("no name of a host")


def _resolve(host: str, port: int, *, deadline: Deadline) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    lookup = _lookups.get((host, port))
    if lookup is None or not lookup.is_alive():  # a lookup that hangs is not asked for twice
        lookup = _lookups[host, port] = _Lookup(host, port)
    lookup.join(deadline.left())
    if lookup.is_alive():
        raise TimeoutError(f"the name server gave no answer for {host}")
    _lookups.pop((host, port), None)
    if lookup.error is not None:
        raise lookup.error
    return lookup.found


def _description(uri: str, number: int, authorization: str) -> list[str]:
    return [
        f"DESCRIBE {uri} RTSP/1.0",
        f"CSeq: {number}",
        "Accept: application/sdp",
        *([authorization] if authorization else []),
    ]


def _get(parts: SplitResult, authorization: str, *, deadline: Deadline) -> Said:
    target = _target(parts)
    if re.search(r"\s", target):
        raise NotUnderstood("a blank in the path")
    host = parts.netloc.rpartition("@")[2]
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: finedge",
        "Accept: */*",
        "Connection: close",
    ]
    with _dialled(parts, deadline=deadline) as connection:
        return _ask(
            connection,
            [*lines, *([authorization] if authorization else [])],
            protocol="HTTP",
            deadline=deadline,
        )


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _ask(connection: socket.socket, lines: list[str], *, protocol: str, deadline: Deadline) -> Said:
    connection.settimeout(deadline.left())
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode(errors="replace"))
    data = b""
    while b"\r\n\r\n" not in data:
        more = _more(connection, deadline=deadline)
        if not more or len(data) > ANSWER_BYTES:
            raise NotUnderstood(_first_line(data) or "it hung up")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    answer = re.match(rb"%b/\d\.\d (\d{3})" % protocol.encode(), head)
    if answer is None:
        raise NotUnderstood(_first_line(head))
    length = re.search(rb"(?i)\ncontent-length: *(\d{1,9})", head)
    while protocol == "RTSP" and length and len(body) < min(int(length[1]), ANSWER_BYTES):
        more = _more(connection, deadline=deadline)
        if not more:
            raise NotUnderstood("it hung up")
        body += more
    return Said(
        int(answer[1]),
        _first_line(head),
        head.decode(errors="replace"),
        body.decode(errors="replace"),
    )


def _more(connection: socket.socket, *, deadline: Deadline) -> bytes:
    connection.settimeout(deadline.left())
    return connection.recv(4096)


def _first_line(data: bytes) -> str:
    return data.split(b"\n", 1)[0][:200].decode(errors="replace").strip()


def _authorization(parts: SplitResult, said: Said, *, method: str, target: str) -> str:
    """Return the header that answers a challenge: Digest by MD5 (RFC 2617, with qop where it is asked for), or Basic."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if set(user) & set('"\r\n\0'):  # would end the header, or its field
        return ""
    digest = re.search(r"(?im)^www-authenticate: *digest ([^\r\n]*)", said.head)
    if digest is None:
        return f"Authorization: Basic {basic(user, password)}"
    told = {key.lower(): value for key, value in re.findall(r'(\w+)="([^"\r\n]*)"', digest[1])}
    realm, nonce = told.get("realm", ""), told.get("nonce", "")
    secret, what = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{target}")
    learn_secret(secret)
    form = f'username="{user}", realm="{realm}", nonce="{nonce}", uri="{target}"'
    if "opaque" in told:
        form += f', opaque="{told["opaque"]}"'
    if "auth" not in re.split(r"[, ]+", told.get("qop", "")):
        return f'Authorization: Digest {form}, response="{_md5(f"{secret}:{nonce}:{what}")}"'
    again = hashlib.sha256(f"{time.time_ns()}".encode()).hexdigest()[:16]
    response = _md5(f"{secret}:{nonce}:00000001:{again}:auth:{what}")
    return f'Authorization: Digest {form}, qop=auth, nc=00000001, cnonce="{again}", response="{response}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(errors="replace"), usedforsecurity=False).hexdigest()


def _unverified() -> ssl.SSLContext:
    """Cameras sign their own certificates, and FFmpeg does not look at them either."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
