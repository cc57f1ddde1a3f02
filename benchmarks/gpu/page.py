"""Write what was measured on a GPU into the documents: python benchmarks/gpu/page.py [--check].

Each sentence and table between `<!-- measured: NAME -->` and `<!-- end -->` of
`benchmarks/gpu/README.md`, and the column "NVIDIA GPU" of the table in `README.md`, come from the
rows of `benchmarks/results/gpu`. With --check nothing is written, and the exit code is 1 where a
document says something else than the rows.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import statements, tables  # noqa: E402
from benchmarks.gpu.results import read  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "gpu"
# In the order of time: where two runs measured the same, the later one counts.
RUNS = ("h200-first", "h200-second", "h200-commands")
PAGE, FRONT = ROOT / "benchmarks" / "gpu" / "README.md", ROOT / "README.md"
BLOCK = re.compile(r"(<!-- measured: ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
GPU_COLUMN = 3
WIDTH = 100

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    rows = measured()
    texts = {PAGE: page(PAGE.read_text(), rows), FRONT: front(FRONT.read_text(), rows)}
    stale = [path for path, text in texts.items() if path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if check else 'written'}", file=sys.stderr)
        if not check:
            path.write_text(texts[path])
    return int(check and bool(stale))


def measured() -> list[Row]:
    """Return the rows of all runs, in the order of time."""
    return [{**row, "run": run} for run in RUNS for row in read(RESULTS / f"{run}.jsonl")]


def page(text: str, rows: Sequence[Row]) -> str:
    """Return the page with every block written from the rows.

    Raises:
        KeyError: a block has a name that nothing here writes.
    """
    return BLOCK.sub(lambda block: f"{block[1]}\n{WRITERS[block[2]](rows)}\n\n{block[4]}", text)


def front(text: str, rows: Sequence[Row]) -> str:
    """Return the front page with the cells of the column "NVIDIA GPU"."""
    lines = []
    for line in text.splitlines(keepends=True):
        cells = line.split("|")
        name = cells[1].strip() if len(cells) > GPU_COLUMN + 2 else ""
        if name in CELLS:
            cells[GPU_COLUMN] = f" {CELLS[name](rows)} "
        lines.append("|".join(cells))
    return "".join(lines)


def _paragraph(write: Callable[[Sequence[Row]], str]) -> Callable[[Sequence[Row]], str]:
    return lambda rows: textwrap.fill(
        write(rows), WIDTH, break_long_words=False, break_on_hyphens=False
    )


def _table(write: tables.Table) -> Callable[[Sequence[Row]], str]:
    return lambda rows: "\n".join(write(rows))


WRITERS: dict[str, Callable[[Sequence[Row]], str]] = {
    "machine": _paragraph(statements.machine),
    "numbers": _paragraph(statements.numbers),
    "times": _table(tables.chosen_times),
    "target": _paragraph(statements.target),
    "counters": _table(tables.chosen_counters),
    "splits": _paragraph(statements.splits),
    "session": _paragraph(statements.session),
    "bindings": _paragraph(statements.bindings),
    "families": _table(tables.families),
}
# The rows of the front page's table whose cell the results decide.
CELLS: dict[str, Callable[[Sequence[Row]], str]] = {
    "train, evaluate": statements.training_cell,
    "attention kernel": statements.kernel_cell,
}


if __name__ == "__main__":
    sys.exit(main())
