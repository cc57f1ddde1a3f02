"""What `finedge report` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from finedge.tables import fields


def show(result: dict[str, Any]) -> RenderableType:
    """Return the paths of the report's two forms."""
    names = {"markdown": "Markdown", "html": "in a browser"}
    return fields((names[key], path) for key, path in result.items())
