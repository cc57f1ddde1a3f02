"""The page itself, with the policy under which a browser runs only its own style and script."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Document:
    """A page of UTF-8 HTML, and its Content-Security-Policy."""

    html: bytes
    policy: str


def load_document() -> Document:
    """Read page.html; its one style and one script are allowed by their digests, and nothing else is."""
    text = files("finedge.runtime.sinks.live").joinpath("page.html").read_text("utf-8")
    allowed = {tag: _digest(text, tag) for tag in ("style", "script")}
    policy = (
        f"default-src 'none'; style-src {allowed['style']}; script-src {allowed['script']}; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Document(text.encode(), policy)


def _digest(text: str, tag: str) -> str:
    (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"
