"""Addresses of streams: where they point, and how they are shown without a password."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from finedge.errors import UsageError
from finedge.redact import learn, mask
from finedge.sanitize import printable

__all__ = ["ESCAPES", "mask", "port_of", "refuse_unsendable", "split", "without_password"]

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
MAX_LENGTH = 8192  # characters; common web servers accept no more
ESCAPES = "in a user or password write @ as %40, : as %3A, / as %2F, # as %23, [ as %5B"
_UNSENDABLE = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def split(uri: str) -> SplitResult:
    """Split the address of a stream into its parts.

    Raises:
        UsageError: there is no valid host, the port is not a number, a character is not allowed in
            an address, or the address is too long.
    """
    refuse_unsendable(uri)
    learn(uri)
    # ValueError also comes from `port`, from `encode`, and from a bracket that is not closed.
    with suppress(ValueError):
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
    """Refuse an address with a character that would end a line of a request.

    Raises:
        UsageError: a control character, half of a surrogate pair, or more than `MAX_LENGTH`
            characters.
    """
    if len(uri) > MAX_LENGTH:
        excerpt = f"{mask(uri)[:80]}..."
        raise UsageError(
            f"'{excerpt}' has {len(uri)} characters",
            expected=f"an address of at most {MAX_LENGTH}",
        )
    match = _UNSENDABLE.search(uri.replace(" ", ""))
    if match:
        raise UsageError(
            f"'{mask(uri)}' has the character {printable(match[0])}",
            expected="printable characters",
            fix=f"write it as %{ord(match[0]):02X}, or leave it out",
        )


def without_password(parts: SplitResult) -> str:
    """Return an address without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def port_of(parts: SplitResult) -> int:
    """Return the port of an address; without one, the usual port of its scheme."""
    return parts.port or PORTS[parts.scheme]
