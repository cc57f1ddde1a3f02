"""What `finedge serve-config` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType

from finedge.tables import one_line


def show(result: dict[str, Any]) -> RenderableType:
    """Return the files that were written. The notes were logged, so they are on the terminal."""
    files = [one_line(f"  {name}") for name in result["files"]]
    head = f"{result['target']}: {len(files)} files in {result['out']}"
    return Group(one_line(head, "bold"), *files)
