"""What `finedge explain` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from finedge.tables import one_line, percent, stack, styled, table


def show(result: dict[str, Any]) -> RenderableType:
    """Return the answer and the picture of each image, and the page that has them all."""
    rows = [
        (entry["image"], styled(entry["label"], "bold"), percent(entry["p"]))
        for entry in result["images"]
    ]
    columns = ("image", "label", ">probability")
    page = one_line(f"pictures: {result['out']}/index.html")
    return stack(table(columns, rows), page)
