"""benchmarks/gpu/all.py as far as a machine without a GPU goes.

Without a GPU every part starts and says why it is skipped. On the stand-in for the CUDA driver the
numbers of the kernel are checked on the CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import ROOT, statuses

PARTS = [
    *("facts", "numbers", "lane", "bindings", "plugin", "timing", "splits", "counters"),
    *("throughput", "sanitizer", "commands", "table"),
]


def test_without_a_gpu_parts_are_skipped_with_a_reason(run, tmp_path):
    rows, printed = run(tmp_path, "--only", "facts,lane,table")
    assert statuses(rows) == {"facts": "skipped", "lane": "skipped", "table": "skipped"}
    assert all(row["reason"] for row in rows if "status" in row)
    assert rows[0]["torch"]  # what is known without a GPU is kept
    assert "table" in printed


@pytest.mark.slow
def test_every_part_starts_without_a_gpu(run, tmp_path):
    rows, _ = run(tmp_path)
    assert statuses(rows) == dict.fromkeys(PARTS, "skipped")
    assert all(row["reason"] for row in rows if "status" in row)


def test_the_kernel_is_as_exact_as_float16_allows(run, standin_libcuda, tmp_path):
    rows, _ = run(tmp_path, "--only", "numbers", "--library", standin_libcuda)
    cases = [row for row in rows if row.get("what") == "case"]
    assert statuses(rows) == {"numbers": "done"}
    assert len(cases) == 4
    assert all(row["pass"] and row["error"] < 1e-3 for row in cases)
    assert {row["splits"] for row in cases} == {1, 3}


def test_the_torch_free_program_is_right_on_the_cpu(standin_libcuda):
    from benchmarks.gpu.torch_free import CHECKS, LIMIT, check
    from finedge.runtime.trt.plugin.driver import Driver

    driver = Driver(str(standin_libcuda))
    from benchmarks.gpu.device import retain_context

    retain_context(driver)
    small = [case for case in CHECKS if case.queries * case.keys * case.d * case.batch < 2e6]
    assert len(small) > 5
    assert all(check(driver, case) <= LIMIT for case in small)


def test_every_kernel_is_profiled():
    from benchmarks.gpu.torch_free import PROFILED
    from finedge.runtime.trt.plugin.launch import SEPARATE, SHARED

    assert {case.kernel for case in PROFILED} == {kernel.name for kernel in (*SEPARATE, *SHARED)}


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


def test_counters_are_compared_a_tile_with_what_the_shim_counts():
    from benchmarks.gpu.parts.counters import A_TILE, compared, tiles
    from benchmarks.gpu.torch_free import PROFILED
    from finedge.runtime.trt.plugin.launch import COMBINE

    case = PROFILED[0]
    counters = {A_TILE["wavefronts"]: 100.0 * tiles(case), A_TILE["products"]: 7.0 * tiles(case)}
    launches = [
        {"kernel": case.kernel, "counters": counters},
        {"kernel": COMBINE, "counters": counters},
        {"kernel": "other", "counters": {}},
    ]
    counted = {
        case.kernel: {
            "kernel": case.kernel,
            "wavefronts": 90,
            "products": 7,
            "H100 x": 20.0,
            "Orin x": 40.0,
        }
    }
    first, combine, other = compared(iter(launches), counted)
    assert first["measured_a_tile"] == {"wavefronts": 100.0, "products": 7.0}
    assert first["counted_a_tile"] == {"wavefronts": 90, "products": 7}
    assert first["bounds"] == {"H100 x": 20.0}
    assert "tiles" not in combine
    assert "expected" in other["reason"]


def test_commands_run_in_the_order_of_what_they_need():
    from benchmarks.gpu.parts.commands import STEPS, in_order

    done = []

    def run(step):
        assert all(name in done for name in step.after)
        done.append(step.name)
        return {"pass": True}

    rows = list(in_order(STEPS, run, most=4))
    assert len(rows) == len(STEPS)
    assert all(row["pass"] for row in rows)


def test_a_command_whose_predecessor_failed_is_left_out():
    from benchmarks.gpu.parts.commands import STEPS, in_order

    def run(step):
        if step.name == "doctor":
            raise OSError("no memory")
        return {"pass": step.name != "export"}

    rows = {row["step"]: row for row in in_order(STEPS, run, most=2)}
    assert rows["doctor"]["pass"] is False
    assert "no memory" in rows["doctor"]["reason"]
    assert rows["verify"]["reason"] == "export failed"
    assert rows["resume"]["pass"] is None
    assert rows["evaluate cuda"]["pass"] is True


def test_every_command_is_one_that_finedge_has():
    from benchmarks.gpu.parts.commands import STEPS
    from finedge.commands import COMMANDS

    assert {step.command.split()[0] for step in STEPS} <= set(COMMANDS)


def test_packages_that_are_absent_are_named(tmp_path):
    import os

    from benchmarks.gpu.parts import commands

    environment = {**os.environ, "PYTHONPATH": ""}
    assert commands.absent(environment) == []
    empty = {**environment, "PYTHONPATH": str(tmp_path)}
    for name in commands.NEEDED:
        (tmp_path / name).mkdir()
    assert commands.absent(empty) == []


def test_jobs_run_side_by_side_and_the_end_of_the_time_ends_them():
    from benchmarks.gpu.side_by_side import Job, events

    quick = "import json; print('noise'); print(json.dumps({'epochs': 1}), flush=True)"
    slow = f"{quick}; import time; time.sleep(60)"
    jobs = [
        Job(name, 0, (sys.executable, "-c", code))
        for name, code in (("quick", quick), ("slow", slow), ("broken", "import sys; sys.exit(3)"))
    ]
    import time

    end = time.monotonic() + 4
    seen = list(events(jobs, most=3, seconds_left=lambda: end - time.monotonic()))
    assert {e.job.name for e in seen if e.row} == {"quick", "slow"}
    assert {e.job.name: e.code for e in seen if e.code is not None} == {"quick": 0, "broken": 3}


def test_a_training_that_is_cut_off_leaves_the_epoch_that_it_reached():
    from benchmarks.gpu.parts.table import results
    from benchmarks.gpu.side_by_side import Event, Job

    whole, cut, broken = (Job(name, 0, ()) for name in ("whole", "cut", "broken"))
    seen = [
        Event(whole, {"epochs": 15}),
        Event(cut, {"epochs": 4, "val": 0.5}),
        Event(whole, {"epochs": 16, "test": {"top1": 0.9}}),
        Event(broken, code=1, seconds=2.0),
        Event(whole, code=0, seconds=9.0),
    ]
    rows = {row["family"]: row for row in results(iter(seen))}
    assert rows["whole"]["test"] == {"top1": 0.9}
    assert rows["cut"] == {
        "family": "cut",
        "seed": 0,
        "epochs": 4,
        "val": 0.5,
        "reason": "the time ended",
    }
    assert rows["broken"]["reason"] == "exit code 1"


@pytest.mark.slow
def test_the_training_program_prints_epochs_and_the_test_accuracy(photos_of_birds):
    script = ROOT / "benchmarks" / "gpu" / "train_one.py"
    recipe = "demo"
    command = [sys.executable, script, "plain", "0", photos_of_birds, "--recipe", recipe]
    done = subprocess.run(
        [*map(str, command), "--epochs", "2", "--workers", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["epochs"] for row in rows] == [1, 2, 2]
    assert rows[-1]["test"]["n"] == 24


@pytest.mark.slow
def test_every_family_has_a_row_of_its_steps(tmp_path):
    """On the CPU, with one image a step."""
    from finedge.train.models import names

    script = ROOT / "benchmarks" / "gpu" / "train_steps.py"
    options = ("--lock", tmp_path / "lock", "--batch", "2", "--half")
    command = [sys.executable, script, "efficientnet_lite0", "64", *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    steps = {row["model"]: row for row in rows if row["what"] == "steps"}
    assert tuple(steps) == names()
    assert {name: row.get("reason") for name, row in steps.items() if "reason" in row} == {}
    assert len([row for row in rows if row["what"] == "half"]) == len(names())


@pytest.fixture
def photos_of_birds(tmp_path):
    """Twelve species of rendered birds, few of each."""
    command = [sys.executable, "-m", "finedge", "data", "render", tmp_path / "photos"]
    counts = ("--train", "4", "--val", "2", "--test", "2")
    subprocess.run([*map(str, command), *counts], check=True, capture_output=True)
    return Path(tmp_path / "photos")
