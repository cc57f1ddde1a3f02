"""What `finedge serve-config` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding

from finedge.tables import one_line, styled


def show(result: dict[str, Any]) -> RenderableType:
    """Return the files that were written, and what the server does differently."""
    files = [one_line(f"  {name}") for name in result["files"]]
    notes = [Padding(styled(f"- {note}"), (0, 0, 0, 2)) for note in result["notes"]]
    head = f"{result['target']}: {len(files)} files in {result['out']}"
    return Group(one_line(head, "bold"), *files, styled("notes", "bold"), *notes)
