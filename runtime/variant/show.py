"""What `finedge choose` shows on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from finedge.tables import one_line, stack, styled, table

BASES = {
    "measured": "timed now",
    "remembered": "timed at an earlier start; --again times it again",
    "single": "nothing to compare",
    "unchecked": "not timed",
}


def show(result: dict[str, Any]) -> RenderableType:
    """Return the times by variant, the choice and its reason."""
    rows = [(variant, f"{ms:.2f}") for variant, ms in result["ms"].items()]
    times = table(("variant", ">ms a frame"), rows, title="1280 x 720, decoded, to top-k")
    head = styled(f"{result['bundle']}: auto runs {result['variant']}", "bold")
    basis = one_line(f"{result['backend']}; {BASES.get(result['basis'], '')}", "dim")
    return stack(head, styled(result["reason"]), *([times] if rows else []), basis)
