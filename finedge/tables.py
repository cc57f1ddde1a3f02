"""Tables of a command's result for a terminal.

Every text goes through `finedge.sanitize.clean`: labels and file names come from others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from finedge.sanitize import clean

UNKNOWN = "-"  # in the place of a number that was not measured
GAP = 2  # between two columns, in characters
LEAST_TEXT = 12  # characters of a text column that may not be taken away for numbers
LONGEST_LIST = 5  # entries of a list in the table of a result that has no renderer


def styled(value: object, style: str = "") -> Text:
    """Return a value as cleaned text; `-` for None. Markup in it has no effect."""
    return Text(UNKNOWN if value is None else clean(str(value)), style=style, overflow="fold")


def one_line(value: object, style: str = "") -> Text:
    """Return a line of its own that is never broken: a path or a command to copy.

    In the cell of a table it would be cut.
    """
    return Text(clean(str(value)), style=style, no_wrap=True, overflow="ignore")


def fields(pairs: Iterable[tuple[str, object]], *, title: str = "") -> RenderableType:
    """Return names and values in two columns; a long value continues below itself."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(styled(name), value if isinstance(value, Text) else styled(value))
    return Group(styled(title, "bold"), grid) if title else grid


@dataclass(frozen=True)
class Columns:
    """A table with a line of column names; `numbers` are aligned right.

    Numbers are kept whole where the terminal is wide enough, and text columns give way to them.
    """

    names: tuple[Text, ...]
    numbers: tuple[bool, ...]
    rows: tuple[tuple[Text, ...], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for the width of the console."""
        whole = sum(map(self._least, range(len(self.names)))) <= options.max_width
        result = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            header_style="bold",
        )
        for name, number in zip(self.names, self.numbers, strict=True):
            justify: Literal["left", "right"] = "right" if number else "left"
            result.add_column(name, justify=justify, overflow="fold", no_wrap=number and whole)
        for row in self.rows:
            result.add_row(*row)
        yield result

    def _least(self, column: int) -> int:
        """Return the width that a column needs, with the gap to the next."""
        widest = max(cells[column].cell_len for cells in (self.names, *self.rows))
        return GAP + (widest if self.numbers[column] else min(widest, LEAST_TEXT))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> RenderableType:
    """Return a table; a column whose name begins with `>` holds numbers."""
    result = Columns(
        tuple(styled(name.removeprefix(">")) for name in columns),
        tuple(name.startswith(">") for name in columns),
        tuple(
            tuple(cell if isinstance(cell, Text) else styled(cell) for cell in row) for row in rows
        ),
    )
    return Group(styled(title, "bold"), result) if title else result


def stack(*parts: RenderableType) -> RenderableType:
    """Return parts one below the other, with an empty line between them."""
    lines: list[RenderableType] = []
    for part in parts:
        lines += ["", part] if lines else [part]
    return Group(*lines)


def percent(share: float | None, *, digits: int = 1) -> str:
    """Return a share in [0, 1] as `87.5 %`; `-` for None."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Return two shares in [0, 1] as `85.2 to 89.9 %`; `-` for None."""
    return UNKNOWN if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def megabytes(size: float | None) -> str:
    """Return bytes as `13.4 MB` (10^6 bytes); `-` for None."""
    return UNKNOWN if size is None else f"{size / 1e6:.1f} MB"


def generic(result: Any) -> RenderableType:
    """Return the table of a result that has no renderer of its own: nested names, and values."""
    return fields(_pairs(result, "")) if isinstance(result, Mapping) else styled(result)


def _pairs(record: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, object]]:
    for name, value in record.items():
        key = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping) and value:
            yield from _pairs(value, f"{key} / ")
        elif isinstance(value, list | tuple):
            yield key, _listed(value)
        else:
            yield key, value


def _listed(values: Sequence[Any]) -> str:
    first = [_short(value) for value in values[:LONGEST_LIST]]
    rest = len(values) - len(first)
    return ", ".join(first + ([f"and {rest} more"] if rest else [])) or "none"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={entry}" for name, entry in value.items())
    return str(value)
