"""The pictures of a multipart/x-mixed-replace answer (MJPEG over HTTP), as their bytes."""

from __future__ import annotations

import re

from finedge.image.jpeg import ends_whole

MOST_BYTES = 64 << 20  # of a picture and its head
HEAD_END = re.compile(rb"\r?\n\r?\n")
LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,9})[ \t]*\r?$")


class Parts:
    """Cuts a stream into the bodies of its parts.

    A part ends by its Content-Length, else with its JPEG, else at the next delimiter.

    Args:
        boundary: of the delimiter, without dashes; empty: the first line is one.

    Attributes:
        ended: the server closed the sequence.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"--" + boundary.encode("latin-1", "replace") if boundary else b""
        self._waiting = bytearray()
        self.ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came; return the bodies that are whole by it, in order.

        Raises:
            ValueError: a part has no end, or there are no parts.
        """
        self._waiting += data
        bodies = list[bytes]()
        while (body := self._next()) is not None:
            bodies.append(body)
        if not bodies and len(self._waiting) > MOST_BYTES:
            raise ValueError(f"a part has more than {MOST_BYTES} bytes")
        return bodies

    def _next(self) -> bytes | None:
        start = self._body_start()
        if start is None:
            return None
        body_start, length = start
        end = self._known_end(body_start) if length is None else body_start + length
        if end is None or end > len(self._waiting):
            return None
        body = bytes(self._waiting[body_start:end])
        del self._waiting[:end]
        return body

    def _body_start(self) -> tuple[int, int | None] | None:
        """Return where the next body begins, and its stated length; None until its head is here."""
        if not self._delimiter and not self._learn():
            return None
        at = self._waiting.find(self._delimiter)
        if at < 0:
            del self._waiting[: -len(self._delimiter)]
            return None
        after = at + len(self._delimiter)
        if self._waiting[after : after + 2] == b"--":
            self.ended = True
            return None
        head = HEAD_END.search(self._waiting, after)
        if head is None:
            return None
        length = LENGTH.search(self._waiting, after, head.end())
        if length and int(length[1]) > MOST_BYTES:
            raise ValueError(f"a part has {int(length[1])} bytes, at most {MOST_BYTES} are read")
        return head.end(), int(length[1]) if length else None

    def _learn(self) -> bool:
        """Take the first line for the delimiter, where the server did not name it."""
        line, found, _ = bytes(self._waiting).lstrip(b"\r\n").partition(b"\n")
        if not found:
            return False
        if not line.startswith(b"--"):
            raise ValueError("it has no parts")
        self._delimiter = line.rstrip()
        return True

    def _known_end(self, start: int) -> int | None:
        end = self._waiting.find(self._delimiter, start)
        if end >= 0:
            return end
        tail = bytes(self._waiting[-8:]).rstrip(b"\r\n")
        if tail.endswith(b"\xff\xd9"):
            body = bytes(self._waiting[start:]).rstrip(b"\r\n")
            return start + len(body) if ends_whole(body) else None
        return None
