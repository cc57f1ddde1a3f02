"""Addresses of streams: where they point, and what of them may be shown."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from finedge.errors import UsageError
from finedge.redact import learn, mask
from finedge.sanitize import printable

__all__ = ["ESCAPES", "mask", "port_of", "refuse_unsendable", "split", "without_password"]

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
LONGEST = 8192  # characters; what the servers we know of take
_BROKEN = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def split(uri: str) -> SplitResult:
    """Split the address of a stream.

    Raises:
        UsageError: no host or one that is no name, a port that is no number, characters that no
            address has, or too many.
    """
    refuse_unsendable(uri)
    learn(uri)
    with suppress(ValueError):  # also of `port`, of brackets that do not close, and of `encode`
        parts = urlsplit(uri)
        if parts.port != 0 and parts.hostname and parts.hostname.encode("idna"):
            return parts
    scheme = uri.partition(":")[0]
    raise UsageError(
        f"'{mask(uri)}' names no host and port",
        expected=f"{scheme}://host:{PORTS.get(scheme, 554)}/path",
        fix=ESCAPES,
    )


def refuse_unsendable(uri: str) -> None:
    """Refuse what would end a line of a request, or means nothing in one.

    Raises:
        UsageError: a control character, half a character, or more than `LONGEST` characters.
    """
    if len(uri) > LONGEST:
        shown = f"{mask(uri)[:80]}..."
        raise UsageError(
            f"'{shown}' has {len(uri)} characters",
            expected=f"an address of at most {LONGEST}",
        )
    broken = _BROKEN.search(uri.replace(" ", ""))
    if broken:
        what = f"'{mask(uri)}' has the character {printable(broken[0])}"
        fix = f"write it as %{ord(broken[0]):02X}, or leave it out"
        raise UsageError(what, expected="printable characters", fix=fix)


def without_password(parts: SplitResult) -> str:
    """Return an address without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def port_of(parts: SplitResult) -> int:
    """Return the port of an address, the usual one of its scheme where it says none."""
    return parts.port or PORTS[parts.scheme]


ESCAPES = "in a user or password write @ as %40, : as %3A, / as %2F, # as %23, [ as %5B"
