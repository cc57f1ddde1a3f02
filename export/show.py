"""What `finedge export` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from finedge.tables import fields, megabytes, one_line, stack, table


def show(result: dict[str, Any]) -> RenderableType:
    """Return the bundle's files with their parity to PyTorch, and the next command."""
    columns = ("file", ">size", ">max |delta|", ">limit", ">images")
    rows = [
        (
            name,
            megabytes(file["bytes"]),
            f"{file['max_abs']:.1e}",
            f"{file['limit']:.1e}",
            file["images"],
        )
        for name, file in result["files"].items()
    ]
    pairs = [
        ("bundle", result["bundle"]),
        ("sha256", result["sha256"]),
        ("taps", len(result["taps"])),
    ]
    if cuts := result.get("segments"):
        pairs.append(("exits", _exits(cuts)))
    title = f"parity with PyTorch ({result['frames']} images)"
    following = f"next: finedge calibrate {result['bundle']} --data DIR"
    return stack(fields(pairs), table(columns, rows, title=title), one_line(following, "dim"))


def _exits(cuts: dict[str, Any]) -> str:
    """Return each exit with the share of the MACs up to it."""
    return ", ".join(
        f"{cut['output']} after {cut['macs'] / cuts['macs']:.1%} of the MACs"
        for cut in cuts["exits"]
    )
