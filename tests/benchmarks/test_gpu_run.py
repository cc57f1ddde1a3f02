"""benchmarks/gpu/all.py as far as a machine without a GPU goes, and what it left from real ones.

Without a GPU every part starts and says why it is skipped; on the stand-in for the CUDA driver the
numbers of the kernel are checked on the CPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "all.py"
RESULTS = sorted((ROOT / "benchmarks" / "results" / "gpu").glob("*.jsonl"))
PARTS = [
    *("facts", "numbers", "lane", "bindings", "timing", "splits", "counters", "throughput"),
    *("commands", "sanitizer", "table"),
]


def run(out, *options):
    command = [sys.executable, SCRIPT, out, "--small", *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=200, env=environment
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def statuses(rows):
    return {row["part"]: row["status"] for row in rows if "status" in row}


def test_without_a_gpu_parts_are_skipped_with_a_reason(tmp_path):
    rows = run(tmp_path, "--only", "facts,lane,table")
    assert statuses(rows) == {"facts": "skipped", "lane": "skipped", "table": "skipped"}
    assert all(row["reason"] for row in rows if "status" in row)
    assert rows[0]["torch"]  # what is known without a GPU is kept


@pytest.mark.slow
def test_every_part_starts_without_a_gpu(tmp_path):
    assert statuses(run(tmp_path)) == dict.fromkeys(PARTS, "skipped")


def test_the_kernel_is_as_exact_as_float16_allows(standin_libcuda, tmp_path):
    rows = run(tmp_path, "--only", "numbers", "--library", standin_libcuda)
    cases = [row for row in rows if row.get("what") == "case"]
    assert statuses(rows) == {"numbers": "done"}
    assert len(cases) == 4
    assert all(row["pass"] and row["error"] < 1e-3 for row in cases)
    assert {row["splits"] for row in cases} == {1, 3}


def test_time_that_runs_out_costs_the_later_parts_only(tmp_path):
    rows = run(tmp_path, "--only", "facts,lane", "--seconds", "1.5")
    assert statuses(rows)["lane"] == "skipped"
    assert rows[-1]["reason"] == "no time was left"


def test_a_part_that_crashes_is_a_row_of_its_own(tmp_path):
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.watch import watch

    with (tmp_path / "results.jsonl").open("w") as file:
        code = "print('{\"error\": 1}', flush=True); import os; os.abort()"
        command = [sys.executable, "-c", code]
        watch("numbers", Results(file), command=command, limit=30, folder=tmp_path)
    first, last = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert first["error"] == 1
    assert (last["status"], last["rows"]) == ("failed", 1)


def test_a_part_that_hangs_is_killed_and_reported(tmp_path, monkeypatch):
    from benchmarks.gpu import watch
    from benchmarks.gpu.results import Results

    monkeypatch.setattr(watch, "GRACE", 0.2)
    with (tmp_path / "results.jsonl").open("w") as file:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        watch.watch("table", Results(file), command=command, limit=0.3, folder=tmp_path)
    assert json.loads((tmp_path / "results.jsonl").read_text())["status"] == "stopped"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_are_readable(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["part"] for row in rows} <= set(PARTS)


def test_committed_results_hold_what_the_readme_says():
    rows = [json.loads(line) for path in RESULTS for line in path.read_text().splitlines()]
    totals = [row for row in rows if row["part"] == "numbers" and row.get("what") == "total"]
    assert [(row["cases"], row["failures"]) for row in totals] == [(474, 0)]
    tools = [row for row in rows if row["part"] == "sanitizer" and "tool" in row]
    assert len(tools) == 8
    assert all(row["pass"] for row in tools)


def test_the_tables_are_printed(tmp_path):
    script = ROOT / "benchmarks" / "gpu" / "tables.py"
    done = subprocess.run(
        [sys.executable, script, *RESULTS], capture_output=True, text=True, check=True
    )
    titles = [line for line in done.stdout.splitlines() if line.startswith("###")]
    assert len(titles) == 5


def test_raw_counters_become_one_row_a_launch():
    from benchmarks.gpu.parts.counters import read

    wavefronts = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"
    text = (
        "==PROF== Connected\n"
        f'"ID","Kernel Name","Grid Size","gpu__time_duration.sum","{wavefronts}","other"\n'
        '"","","","ns","",""\n'
        '"0","cla_512","(13, 1, 32)","1,170,080","68,726,789","7"\n'
    )
    (row,) = read(text)
    assert row["kernel"] == "cla_512"
    assert row["counters"] == {"gpu__time_duration.sum": 1170080.0, wavefronts: 68726789.0}
    assert row["units"] == {"gpu__time_duration.sum": "ns"}
