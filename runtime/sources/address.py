"""Addresses of streams: where they point, and what of them may be shown."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from finedge.errors import UsageError

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
# Greedy up to the last @ of a word: a password may hold an unescaped @, / or quote. Better to hide too much.
_IN_URI = re.compile(r"(\w+://[^\s:/@]*):\S*@")
_IN_PARAMETER = re.compile(r"(?i)\b([\w-]*(?:pw|pwd|psw|pas|pass\w*|token|secret|key|auth|sig|signature|credentials?))=(\"[^\"]*\"|'[^']*'|[^&\s\"']+)")


def mask(text: str) -> str:
    """Hide what is a password in addresses, their parameters and GStreamer properties, anywhere in `text`."""
    return _IN_PARAMETER.sub(r"\1=***", _IN_URI.sub(r"\1:***@", text))


def split(uri: str) -> SplitResult:
    """Split the address of a stream.

    Raises:
        UsageError: no host or one that is no name, or a port that is no number.
    """
    with suppress(ValueError):  # also of `port`, of brackets that do not close, and of `encode`
        parts = urlsplit(uri)
        if parts.port != 0 and parts.hostname and parts.hostname.encode("idna"):
            return parts
    scheme = uri.partition(":")[0]
    raise UsageError(f"'{mask(uri)}' names no host and port", expected=f"{scheme}://host:{PORTS.get(scheme, 554)}/path", fix=ESCAPES)


def without_password(parts: SplitResult) -> str:
    """Return an address without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def port_of(parts: SplitResult) -> int:
    """Return the port of an address, the usual one of its scheme where it says none."""
    return parts.port or PORTS[parts.scheme]


ESCAPES = "in a user or password write @ as %40, : as %3A, / as %2F, # as %23, [ as %5B"
