"""One line an event, for people at a terminal: time, start or end, track, label, probability."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from finedge import terminal
from finedge.runtime.events.event import Event
from finedge.tables import percent, styled

if TYPE_CHECKING:
    from rich.console import Console


class TextEvents:
    """Prints each event as a line."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or terminal.console()

    def write(self, event: Event) -> None:
        """Print one line.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        self._console.print(Text("  ").join(_parts(event)), soft_wrap=True)

    def close(self) -> None:
        """Do nothing: every line was flushed."""


def _parts(event: Event) -> list[Text]:
    at = event.started_at if event.kind == "started" else event.ended_at
    name = event.answer or event.coarser
    parts = [
        styled(f"{datetime.fromtimestamp(at):%H:%M:%S}", "dim"),
        styled(event.source, "dim"),
        styled(f"#{event.track}"),
        styled(f"{event.kind:<7}"),
        styled(event.label, "bold" if name else "yellow"),
    ]
    if name:
        parts.append(styled(percent(name.p), "bold"))
    if event.kind == "ended":
        parts.append(styled(f"{event.seconds:.1f} s, {event.frames} frames", "dim"))
    return parts
