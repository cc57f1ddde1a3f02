"""What `finedge sensitivity` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from finedge.tables import fields, one_line, percent, stack, table

COLUMNS = (">", "module", "node", "kind", ">MACs", ">KL", ">answers changed", ">top-1 drop, points")


def show(result: dict[str, Any]) -> RenderableType:
    """Return the ranked layers, the most sensitive first."""
    rows = [
        (
            number,
            row["module"],
            row["layer"],
            row["kind"],
            percent(row["macs"]),
            f"{row['kl']:.6f}",
            percent(row["changed"]),
            f"{100 * row['drop']:.2f}",
        )
        for number, row in enumerate(result["layers"], start=1)
    ]
    images = f"{result['images']} training images, each also in a hard view"
    about = fields([("measured on", images), ("ranges", f"method {result['method']}")])
    picture = [one_line(f"picture: {result['plot']}")] if result["plot"] else []
    return stack(about, table(COLUMNS, rows, title="each layer alone in INT8"), *picture)
