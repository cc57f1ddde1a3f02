"""What `finedge deploy` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from finedge.tables import stack, styled, table


def show(result: dict[str, Any]) -> RenderableType:
    """Return the steps, and which version the board serves now."""
    steps = [
        (
            styled("ok", "green") if step["ok"] else styled("FAILED", "bold red"),
            step["name"],
            f"{step['seconds']:.1f} s",
            step["detail"],
        )
        for step in result["steps"]
    ]
    failed = any(not step["ok"] for step in result["steps"])
    place = f"{result['host']}: version {result['version']}"
    if result["rolled_back"]:
        verdict = styled(f"{place} was rolled back; the board is as before", "bold red")
    elif failed:
        verdict = styled(f"{place} does not serve", "bold red")
    else:
        verdict = styled(f"{place} serves", "bold green")
    return stack(table(("", "step", ">time", "detail"), steps), verdict)
