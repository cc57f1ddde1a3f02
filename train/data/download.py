"""Downloads one file: complete, from a trusted address, and never more than the disk holds."""

from __future__ import annotations

import http.client
import ipaddress
import shutil
import urllib.request
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from finedge.errors import SystemProblem

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
RESERVE = 64 << 20  # bytes that stay free: a full disk harms other programs


def download(url: str, out: BinaryIO, *, any_scheme: bool) -> None:
    """Write what `url` serves to `out`.

    Args:
        url: http, https or file; redirects are followed.
        out: an open file, flushed at the end.
        any_scheme: whether any address may be used, because a digest will prove the content. Else
            only https, a file or this machine is trusted, at every redirect.

    Raises:
        SystemProblem: the address cannot be trusted, or the disk is too small.
        OSError: the address cannot be reached.
        http.client.HTTPException: the body was truncated.
    """
    opener = urllib.request.build_opener(_Redirects(any_scheme=any_scheme))
    _require_vouched(url, any_scheme=any_scheme)
    request = urllib.request.Request(url, headers={"User-Agent": "finedge"})
    folder = Path(out.name).parent
    with opener.open(request, timeout=TIMEOUT) as response:
        length = _announced(response.headers.get("Content-Length"))
        _require_room(folder, length or 0)
        _copy(response, out, name=url.rpartition("/")[2], length=length)
    out.flush()
    # http.client reports no error for a truncated body.
    if length is not None and out.tell() != length:
        raise http.client.IncompleteRead(b"", length - out.tell())


def is_vouched(url: str) -> bool:
    """Tell whether an address proves who serves it: https, a file, or this machine."""
    parts = urlsplit(url)
    if parts.scheme.lower() != "http":
        return parts.scheme.lower() in ("https", "file")
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, *, any_scheme: bool) -> None:
        self.any_scheme = any_scheme

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follow a redirect if its address can be trusted, as for the first address."""
        _require_vouched(newurl, any_scheme=self.any_scheme)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_vouched(url: str, *, any_scheme: bool) -> None:
    if not (any_scheme or is_vouched(url)):
        raise SystemProblem(
            f"nothing vouches for {url}: it is not https, and no digest of the file is published",
            expected="https, or a file that was put into the folder",
            fix="fetch the file in a way that you trust and put it into the folder; or use "
            "--mirror https://...",
        )


def _announced(length: str | None) -> int | None:
    is_number = length and length.isascii() and length.isdigit() and len(length) < 20
    return int(length) if length and is_number else None


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free - size < RESERVE:
        problem = f"{folder} is nearly full"
        if size:
            problem = f"{folder} has {free >> 20} MiB free; the download needs {size >> 20} MiB"
        raise SystemProblem(
            problem,
            expected=f"{RESERVE >> 20} MiB to spare",
            fix="free some space, or name another folder",
        )


def _copy(response: IO[bytes], out: BinaryIO, *, name: str, length: int | None) -> None:
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=length)
        for chunk in iter(partial(response.read, CHUNK), b""):
            if length is None:  # a stream may never end
                _require_room(Path(out.name).parent, len(chunk))
            out.write(chunk)
            progress.update(task, advance=len(chunk))
