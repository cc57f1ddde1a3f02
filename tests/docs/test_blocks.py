"""Every command and Python block of the documents is run, in order, in one folder a page.

A comment on the lines before a block says how it is tested:

    <!-- not run: REASON -->              never; the reason is for readers of the page's source too
    <!-- slow -->                         only with -m slow
    <!-- in the test: train --epochs 1; benchmark --duration 1s -->     options that commands get
    <!-- starts with: runs/birds -->      a trained run, or `birds.finedge`, its bundle, lies there
    <!-- needs: MODULE -->                only where MODULE can be imported
    <!-- prints -->                       this block is what the block before it prints
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "finedge/README.md"]
PAGES += ["jetson/README.md", "jetson/plugin/README.md"]
PAGES += sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*.md")
    if not path.is_symlink()  # its target is in the list
)
RUN = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}
MARKERS = ("not run", "slow", "in the test", "starts with", "needs", "prints")
SHOWN = {"json", "text", "toml", "ini"}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
# Floats are shown with few digits, and INT8 arithmetic is not the same on every CPU.
TOLERANCE = 0.1
TIMEOUT = 600  # seconds


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its line in the page, and the markers before it."""

    language: str
    text: str
    line: int
    markers: dict[str, str]

    @property
    def runs(self) -> bool:
        """Whether the test may execute it."""
        return self.language in RUN and "not run" not in self.markers

    @property
    def is_slow(self) -> bool:
        return "slow" in self.markers

    def command(self) -> str:
        """Return the text with the options that the test adds after the name of a command."""
        text = self.text
        for addition in filter(None, self.markers.get("in the test", "").split(";")):
            name, options = addition.split(maxsplit=1)
            text, count = re.subn(rf"^(finedge {name}) ", rf"\1 {options} ", text, flags=re.M)
            assert count, f"line {self.line}: no line begins with 'finedge {name}'"
        return text


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return list(_blocks((ROOT / page).read_text().splitlines()))


def _blocks(lines: list[str]) -> Iterator[Block]:
    markers: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        comment = re.fullmatch(r"<!-- ([a-z ]+?)(?:: (.*))? -->", line)
        if comment:
            markers[comment[1]] = comment[2] or ""
        elif line.startswith("```"):
            end = lines.index("```", number + 1)
            text = "\n".join(lines[number + 1 : end]) + "\n"
            yield Block(line[3:], text, number + 1, markers)
            markers, number = {}, end
        elif line:
            assert not markers, f"line {number + 1}: a marker stands directly before its block"
        number += 1


@pytest.mark.parametrize("page", PAGES)
def test_each_block_has_a_language_and_markers_that_exist(page: str) -> None:
    for block in blocks(page):
        assert block.language in RUN or block.language in SHOWN, f"line {block.line}"
        assert set(block.markers) <= set(MARKERS), f"line {block.line}"
        assert block.markers.get("not run", "a reason"), f"line {block.line}: say why"


FAST = [page for page in PAGES if any(b.runs and not b.is_slow for b in blocks(page))]
SLOW = [page for page in PAGES if any(b.runs and b.is_slow for b in blocks(page))]


@pytest.mark.parametrize("page", FAST)
def test_the_blocks_run(
    page: str, desk: Path, commands_folder: Path, lay: Callable[[str], None]
) -> None:
    run_page(page, desk, path=commands_folder, lay=lay, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_the_slow_blocks_run_too(
    page: str, desk: Path, commands_folder: Path, lay: Callable[[str], None]
) -> None:
    pytest.importorskip("torch")
    run_page(page, desk, path=commands_folder, lay=lay, slow=True)


def run_page(page: str, desk: Path, *, path: Path, lay: Callable[[str], None], slow: bool) -> None:
    """Run the blocks one after the other in `desk`; compare what is shown as printed."""
    printed: str | None = None
    for block in blocks(page):
        if "prints" in block.markers:
            if printed is not None:
                assert_same(block, printed)
        elif block.runs and (slow or not block.is_slow) and _has(block.markers.get("needs")):
            for name in block.markers.get("starts with", "").split():
                lay(name)
            printed = run(block, desk, path=path)
        else:
            printed = None


def _has(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


def run(block: Block, desk: Path, *, path: Path) -> str:
    """Run a block; return its stdout. Any exit code but 0 fails, with all that was printed."""
    environment = os.environ | {
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*RUN[block.language], block.command()],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        executable=None if block.language == "sh" else path / "python",
    )
    assert done.returncode == 0, (
        f"line {block.line}:\n{block.command()}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


def assert_same(block: Block, printed: str) -> None:
    """Compare a shown block with stdout: JSON by its keys and texts, else line by line."""
    if block.language == "json":
        last = printed.splitlines()[-1]
        assert shape(json.loads(block.text)) == shape(json.loads(last)), f"line {block.line}"
    else:
        shown, real = block.text.splitlines(), printed.splitlines()
        assert len(shown) == len(real), f"line {block.line}: {printed}"
        for left, right in zip(shown, real, strict=True):
            assert NUMBER.sub("N", left) == NUMBER.sub("N", right), f"line {block.line}"
            for a, b in zip(NUMBER.findall(left), NUMBER.findall(right), strict=True):
                assert math.isclose(float(a), float(b), rel_tol=TOLERANCE), f"{left} != {right}"


def shape(value: Any) -> Any:
    """Return plain data with every number, and every number in a text, as N."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, str):
        return NUMBER.sub("N", value)
    return value if isinstance(value, bool) or value is None else "N"
