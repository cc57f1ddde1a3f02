"""The committed rows of sweeps: the files that made them still find them."""

import json
from pathlib import Path

import pytest

from finedge.train.sweep.file import read_sweep
from finedge.train.sweep.plan import groups, search_runs

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SWEPT = sorted((BENCHMARKS / "results" / "sweep").iterdir())


@pytest.mark.parametrize("results", SWEPT, ids=lambda path: path.name)
def test_every_row_is_of_a_setting_of_its_file(results):
    file = read_sweep(BENCHMARKS / "sweeps" / f"{results.name}.toml")
    known = {run.setting.digest for group in groups(file) for run in search_runs(file, group)}
    rows = [json.loads(path.read_text()) for path in (results / "rows").rglob("*.json")]
    assert {row["digest"] for row in rows} <= known
    assert {row["data"] for row in rows} <= set(file.data)
