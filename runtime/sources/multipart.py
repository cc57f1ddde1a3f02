"""The images in a multipart/x-mixed-replace body (MJPEG over HTTP), as bytes."""

from __future__ import annotations

import re

from finedge.image.jpeg import ends_whole

MAX_IMAGE_BYTES = 64 << 20  # of an image and its header
HEADER_END = re.compile(rb"\r?\n\r?\n")
LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,9})[ \t]*\r?$")


class MultipartParser:
    """Splits a stream of bytes into the bodies of its parts.

    A part ends by its Content-Length, else with its JPEG, else at the next delimiter.

    Args:
        boundary: of the delimiter, without dashes. Empty: the first line is the delimiter.

    Attributes:
        ended: the server ended the sequence.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"--" + boundary.encode("latin-1", "replace") if boundary else b""
        self._buffer = bytearray()
        self.ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes. Return the bodies that are complete with them, in order.

        Raises:
            ValueError: a part has no end, or there are no parts.
        """
        self._buffer += data
        bodies = list[bytes]()
        while (body := self._next_body()) is not None:
            bodies.append(body)
        if not bodies and len(self._buffer) > MAX_IMAGE_BYTES:
            raise ValueError(f"a part has more than {MAX_IMAGE_BYTES} bytes")
        return bodies

    def _next_body(self) -> bytes | None:
        header = self._next_header()
        if header is None:
            return None
        start, length = header
        end = self._find_end(start) if length is None else start + length
        if end is None or end > len(self._buffer):
            return None
        body = bytes(self._buffer[start:end])
        del self._buffer[:end]
        return body

    def _next_header(self) -> tuple[int, int | None] | None:
        """Return where the next body begins, and its Content-Length.

        None as long as its header is not complete.
        """
        if not self._delimiter and not self._read_delimiter():
            return None
        position = self._buffer.find(self._delimiter)
        if position < 0:
            del self._buffer[: -len(self._delimiter)]
            return None
        after = position + len(self._delimiter)
        if self._buffer[after : after + 2] == b"--":
            self.ended = True
            return None
        header_end = HEADER_END.search(self._buffer, after)
        if header_end is None:
            return None
        start = header_end.end()
        match = LENGTH.search(self._buffer, after, start)
        length = int(match[1]) if match else None
        if length is not None and length > MAX_IMAGE_BYTES:
            raise ValueError(f"a part has {length} bytes, at most {MAX_IMAGE_BYTES} are read")
        return start, length

    def _read_delimiter(self) -> bool:
        """Take the first line as the delimiter, where the server did not name it."""
        line, line_end, _ = bytes(self._buffer).lstrip(b"\r\n").partition(b"\n")
        if not line_end:
            return False
        if not line.startswith(b"--"):
            raise ValueError("it has no parts")
        self._delimiter = line.rstrip()
        return True

    def _find_end(self, start: int) -> int | None:
        end = self._buffer.find(self._delimiter, start)
        if end >= 0:
            return end
        tail = bytes(self._buffer[-8:]).rstrip(b"\r\n")
        if tail.endswith(b"\xff\xd9"):
            body = bytes(self._buffer[start:]).rstrip(b"\r\n")
            return start + len(body) if ends_whole(body) else None
        return None
