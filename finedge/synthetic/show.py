"""What `finedge data render` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType

from finedge.tables import one_line, styled


def show(result: dict[str, Any]) -> RenderableType:
    """Return what was rendered, and the next command."""
    images, new = result["images"], result["rendered"]
    state = "rendered now" if new else "all there already"
    return Group(
        styled(f"{images} images of {result['classes']} species in {result['out']} ({state})"),
        one_line(f"next: finedge train --recipe demo --data {result['out']} --out RUN", "dim"),
    )
