"""The numbers of the documents are those of the committed rows of the GPU runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.gpu import page
from benchmarks.gpu.all import PARTS
from finedge.runtime.trt.plugin.image import image_digest
from tests.benchmarks.conftest import ROOT

FILES = sorted(page.RESULTS.glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_results_are_readable(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["part"] for row in rows} <= {part.name for part in PARTS}


def test_every_committed_run_is_used():
    assert {path.stem for path in FILES} == set(page.RUNS)


def test_the_documents_say_what_the_rows_say():
    """Where this fails: python benchmarks/gpu/page.py."""
    rows = page.measured()
    assert page.PAGE.read_text() == page.page(page.PAGE.read_text(), rows)
    assert page.FRONT.read_text() == page.front(page.FRONT.read_text(), rows)


def test_every_writer_has_its_place():
    assert {block[2] for block in page.BLOCK.finditer(page.PAGE.read_text())} == set(page.WRITERS)
    lines = page.FRONT.read_text().splitlines()
    names = {line.split("|")[1].strip() for line in lines if line.startswith("|")}
    assert set(page.CELLS) <= names


def test_a_number_that_was_changed_by_hand_is_stale():
    rows, text = page.measured(), page.PAGE.read_text()
    assert "passed all 474 cases" in text
    assert page.page(text.replace("all 474 cases", "all 475 cases"), rows) == text


def test_the_front_page_follows_the_rows():
    rows, text = page.measured(), page.FRONT.read_text()
    assert "[right and slow](docs/gpu.md)" in text
    wrong = [{**row, "failures": 1} if row.get("what") == "total" else row for row in rows]
    assert "| before: [wrong and slow](docs/gpu.md)" in page.front(text, wrong)
    now = [{**row, "kernel": image_digest()} if "cuda" in row else row for row in rows]
    assert "| ✓ [right and slow](docs/gpu.md) on an H200 |" in page.front(text, now)
    untrained = [row for row in rows if row["part"] != "commands"]
    assert "one H200" not in page.front(text, untrained)


def test_a_later_run_replaces_an_earlier_one():
    rows = page.measured()
    numbers = [row for row in rows if row["part"] == "numbers" and "cases" in row]
    later = [{**row, "cases": 500, "run": "later"} for row in numbers]
    assert "passed all 500 cases" in page.WRITERS["numbers"]([*rows, *later])


def test_all_tables_are_printed():
    script = ROOT / "benchmarks" / "gpu" / "tables.py"
    done = subprocess.run(
        [sys.executable, script, *FILES], capture_output=True, text=True, check=True
    )
    titles = [line for line in done.stdout.splitlines() if line.startswith("###")]
    assert len(titles) == 5


def test_rows_of_a_run_that_ended_early_make_a_table():
    """A run may leave any part out."""
    from benchmarks.gpu.tables import TABLES

    assert all(len(list(table([]))) == 2 for table in TABLES.values())
