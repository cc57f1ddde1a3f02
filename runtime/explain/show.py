"""What `finedge explain` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from finedge.tables import one_line, percent, stack, styled, table


def show(result: dict[str, Any]) -> RenderableType:
    """Return the answer and the picture of each image, and the page that has them all."""
    page = one_line(f"pictures: {result['out']}/index.html")
    if "flips" in result:
        return stack(_flips(result), page)
    rows = [
        (entry["image"], styled(entry["label"], "bold"), percent(entry["p"]))
        for entry in result["images"]
    ]
    columns = ("image", "label", ">probability")
    return stack(table(columns, rows), page)


def _flips(result: dict[str, Any]) -> RenderableType:
    """Return the answers of both variants, below a line that counts them."""
    counts = f"INT8 changes {result['flips']} of {result['n']} answers: {result['lost']} lost, "
    counts += f"{result['gained']} gained (McNemar p = {result['mcnemar_p']:.2g})"
    keys = ("image", "truth", "fp32", "int8")
    rows = [tuple(entry[key] for key in keys) for entry in result["images"]]
    return stack(one_line(counts), table(("image", "class", "FP32", "INT8"), rows))
