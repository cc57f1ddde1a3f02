"""Whatever fails in a GPU run, no row that was known before is lost."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import watch as watching
from benchmarks.gpu.results import Results, read
from benchmarks.gpu.watch import watch
from tests.benchmarks.conftest import statuses

ROW = "import json, os, time; print(json.dumps({'error': 1}), flush=True); "


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A function: the rows of a part that runs some code."""
    monkeypatch.setattr(watching, "GRACE", 0.5)

    def rows(code, *, limit=30.0):
        results = Results(tmp_path / "results.jsonl")
        watch("x", results, command=[sys.executable, "-c", code], limit=limit, folder=tmp_path)
        return read(tmp_path / "results.jsonl")

    return rows


def gone(pid):
    """Tell whether a process is gone, or is one that nobody waits for."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_part_that_aborts_keeps_its_rows(part):
    first, last = part(ROW + "os.abort()")
    assert first["error"] == 1
    assert (last["status"], last["rows"]) == ("failed", 1)


def test_a_part_that_is_killed_keeps_its_rows_and_leaves_no_process(part, tmp_path):
    code = (
        ROW + "import signal, subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(json.dumps({'child': child.pid}), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    start = time.monotonic()
    first, child, last = part(code)
    assert time.monotonic() - start < 20  # the child holds the pipe, and would for a minute
    assert first["error"] == 1
    assert (last["status"], last["reason"]) == ("failed", "exit code -9: nothing on stderr")
    assert gone(child["child"])


def test_a_part_that_hangs_is_killed_with_its_rows_kept(part):
    first, last = part(ROW + "time.sleep(60)", limit=1.0)
    assert first["error"] == 1
    assert last["status"] == "stopped"


def test_a_part_that_ignores_its_end_is_killed(part):
    code = ROW + "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert part(code, limit=1.0)[-1]["status"] == "stopped"


def test_a_part_that_cannot_start_is_a_row(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    watch("x", results, command=["/no/such/program"], limit=5, folder=tmp_path)
    assert read(tmp_path / "results.jsonl")[0]["status"] == "failed"


def test_much_on_stderr_does_not_block_a_part(part, tmp_path):
    code = ROW + "import sys; [print('x' * 1000, file=sys.stderr) for _ in range(5000)]"
    assert part(code + "; print(json.dumps({'status': 'done'}))")[-1]["status"] == "done"
    assert (tmp_path / "log.txt").stat().st_size < 1_000_000


def test_a_full_disk_keeps_whole_lines_and_prints_the_rest(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    results = Results(path)
    results.add("x", {"row": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        results.add("x", {"row": 2, "long": "y" * 100})
        results.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == [1]
    assert json.loads(capsys.readouterr().out)["row"] == 2
    results.add("x", {"row": 3})  # there is room again
    assert [row["row"] for row in read(path)] == [1, 2, 3]


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_and_prints_its_rows(run, tmp_path):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    rows, printed = run(tmp_path, "--only", "facts,table", prepare=full)
    assert rows == []
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert statuses(rows) == {"facts": "skipped", "table": "skipped"}


def test_a_line_that_a_killed_machine_cut_off_is_left_out(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"part": "x", "row": 1}\n{"part": "x", "ro')
    assert [row["row"] for row in read(tmp_path / "results.jsonl")] == [1]


@pytest.mark.slow
def test_without_git_and_nvidia_smi_a_run_is_whole(run, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "carried").mkdir()
    (tmp_path / "carried" / "commit").write_text("abc123\n")
    options = ("--only", "facts", "--carried", tmp_path / "carried")
    rows, _ = run(tmp_path, *options, PATH=str(tmp_path / "bin"))
    assert rows[0]["commit"] == "abc123"
    assert rows[0]["carried_fits"] is False
    assert statuses(rows) == {"facts": "skipped"}


@pytest.mark.slow
def test_an_nvidia_smi_that_hangs_does_not_hold_the_run(run, tmp_path):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 300\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    start = time.monotonic()
    rows, _ = run(tmp_path, "--only", "table", PATH=path)
    assert statuses(rows) == {"table": "skipped"}
    assert time.monotonic() - start < 120


@pytest.mark.slow
def test_time_that_runs_out_costs_the_later_parts_only(run, tmp_path):
    rows, _ = run(tmp_path, "--only", "facts,lane", "--seconds", "1.5")
    assert statuses(rows)["lane"] == "skipped"
    assert rows[-1]["reason"] == "no time was left"


def test_a_case_that_cuda_refuses_is_a_row_with_its_reason(standin_libcuda, tmp_path, monkeypatch):
    from benchmarks.gpu.part import Request
    from benchmarks.gpu.parts import numbers

    def refuse(attention):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(numbers, "checked", refuse)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # it would ask the stand-in
    request = Request(tmp_path, time.monotonic() + 60, small=True, library=str(standin_libcuda))
    rows = list(numbers.rows(request))
    assert "illegal memory access" in rows[0]["reason"]
    assert rows[-1]["failures"] == rows[-1]["cases"] == 1
    assert rows[-1]["of"] == len(numbers.SMALL)
