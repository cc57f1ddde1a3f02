"""The picture in the body of a request: the body itself, or one file of a multipart form."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from finedge.errors import DataError, UsageError
from finedge.runtime.serve.answers import Refused

DISCARDED = 4  # a body of up to so many times the limit is read to its end, so that 413 arrives
MAX_NAME = 200
MAX_FIELDS = 16


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # nothing is written to a disk: the body is bounded


async def read_picture(request: Request, *, limit: int) -> tuple[str, bytes]:
    """Return the name and the bytes of the picture of a request.

    Raises:
        Refused: the body is larger than `limit` bytes (413), or a form without one file (400).
        starlette.requests.ClientDisconnect: the client has gone.
    """
    body = await _read_body(request, limit=limit)
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        return _name(request.query_params.get("source", "")), body
    upload = await _only_file(request, body)
    return _name(upload.filename or ""), await upload.read()


async def _read_body(request: Request, *, limit: int) -> bytes:
    length = request.headers.get("Content-Length", "")
    is_too_large = length.isdecimal() and int(length) > limit
    if is_too_large and request.headers.get("Expect", "").lower() == "100-continue":
        raise too_large(limit)  # the client waits with the body
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        is_too_large = is_too_large or size > limit
        if is_too_large:
            parts.clear()
        else:
            parts.append(part)
        if size > DISCARDED * limit:
            break
    if is_too_large:
        raise too_large(limit)
    return b"".join(parts)


def too_large(limit: int) -> Refused:
    """Return the answer to a body of more than `limit` bytes."""
    error = DataError(
        f"the picture has more than {limit} bytes",
        expected=f"at most {limit / 2**20:g} MiB",
        fix="scale it down, or start the server with a larger --max-mib",
    )
    return Refused(413, error, headers={"Connection": "close"})


async def _only_file(request: Request, body: bytes) -> UploadFile:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    try:
        form = await _InMemory(
            request.headers, chunks(), max_files=1, max_fields=MAX_FIELDS
        ).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise _no_file(f"the form cannot be read: {error}") from error
    uploads = [value for value in form.values() if isinstance(value, UploadFile)]
    if not uploads:
        raise _no_file("the form has no file")
    return uploads[0]


def _no_file(what: str) -> Refused:
    error = UsageError(
        what,
        expected="one file in a multipart form, or the picture itself as the body",
        fix="curl --data-binary @photo.jpg URL, or curl -F picture=@photo.jpg URL",
    )
    return Refused(400, error)


def _name(name: str) -> str:
    return name[:MAX_NAME] or "request"
