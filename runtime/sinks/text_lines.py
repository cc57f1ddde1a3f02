"""One line a result, for people at a terminal: name or time, label, probability, time in ms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from finedge import terminal
from finedge.runtime.sinks.base import Context, Result
from finedge.tables import percent, styled
from finedge.wall_time import parse_time

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 48  # characters of a column; a longer name or label moves the rest of its line
STATUS = {"no_signal": "no signal"}


class TextLines:
    """Prints each record as a line. Further labels come last, as far as the terminal is wide."""

    def __init__(self, context: Context, console: Console | None = None) -> None:
        self._context = context
        self._console = console or terminal.console()
        self._widths: dict[str, int] = {}  # of the columns so far, in characters

    def write(self, result: Result) -> None:
        """Print the lines of a result.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        for record in result.lines:
            self._write(result, record)

    def _write(self, result: Result, record: Mapping[str, Any]) -> None:
        parts = [self._padded("name", self._name(result))]
        if record.get("track") is not None:
            parts.append(self._padded("track", styled(f"#{record['track']}", "dim")))
        if record["status"] != "ok":
            parts.append(styled(STATUS.get(record["status"], record["status"]), "yellow"))
        if record["top"]:
            parts += self._answer(record)
        line = Text("  ").join(parts)
        for label in map(_other, record["top"][1:]):
            if line.cell_len + label.cell_len + 2 > self._console.width:
                break
            line = Text("  ").join([line, label])
        # Not wrapped: a line that is too long stays one line of text.
        self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Do nothing: every line was flushed."""

    def _name(self, result: Result) -> Text:
        """Return the time of a live frame, the number of a video's, the file's name of a photo.

        With several sources the source comes first.
        """
        record = result.record
        source = styled(record["source"])
        if result.seconds is None and record["status"] != "no_signal":  # a photo
            return source
        place = styled(_place(record, live=self._context.live), "dim")
        return Text(" ").join([source, place]) if len(self._context.names) > 1 else place

    def _answer(self, record: Mapping[str, Any]) -> Iterator[Text]:
        """Yield the best label, its probability, and the time of all stages."""
        best = record["top"][0]
        yield self._padded("label", styled(best["label"], "bold"))
        yield styled(f"{percent(best['p']):>7}", "bold")
        yield styled(f"{sum(ms for ms in record['ms'].values() if ms is not None):6.1f} ms")

    def _padded(self, column: str, text: Text) -> Text:
        width = max(self._widths.get(column, 0), min(text.cell_len, WIDEST))
        self._widths[column] = width
        text.pad_right(max(0, width - text.cell_len))
        return text


def _place(record: Mapping[str, Any], *, live: bool) -> str:
    if not live:
        return f"frame {record['frame']:>6}"
    at = record["captured_at"]
    time = parse_time(at) if at else datetime.now()
    return f"{time.astimezone():%H:%M:%S}.{time.microsecond // 1000:03}"


def _other(entry: Mapping[str, Any]) -> Text:
    return styled(f"{entry['label']} {percent(entry['p'])}", "dim")
