"""benchmarks/trtexec.sh with stand-ins for trtexec and finedge: command lines, rows, failures."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "trtexec.sh"
# Each writes its arguments as a line. trtexec also writes what it is asked for, except that it
# fails where $FAIL is in its arguments.
TRTEXEC = """#!/usr/bin/env bash
echo "$*" >>"$LOG"
case "$*" in *"$FAIL"*) echo "&&&& FAILED" && exit 1 ;; esac
for option in "$@"; do
    case $option in
    --saveEngine=*) echo engine >"${option#*=}" ;;
    --exportTimes=*) echo "$TIMES" >"${option#*=}" ;;
    esac
done
"""
FINEDGE = """#!/usr/bin/env bash
echo "finedge $*" >>"$LOG"
echo '{"rows": [{"variant": "int8", "n": 700, "engine_p50_ms": 0.4}]}'
"""
TIMES = [{"latencyMs": ms, "computeMs": ms / 2} for ms in (1.0, 3.0, 2.0)]
FILES = ("model.fp32.onnx", "model.fp16.onnx", "model.int8.onnx")


@pytest.fixture
def run(tmp_path):
    """A function: the exit code, the command lines, the rows of summary.csv, and stderr."""
    bundle, programs = tmp_path / "a bundle.finedge", tmp_path / "bin"
    bundle.mkdir()
    programs.mkdir()
    size = {"name": "frames", "height": 160, "width": 192}
    (bundle / "manifest.json").write_text(json.dumps({"spec": {"input": size}}))
    for name, text in (("trtexec", TRTEXEC), ("finedge", FINEDGE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def call(*, files=FILES, fail="no such argument", times=TIMES, arguments=None, **environment):
        for name in files:
            (bundle / name).touch()
        out, log = tmp_path / "out", tmp_path / "log"
        variables = {"LOG": str(log), "FAIL": fail, "TIMES": json.dumps(times)}
        path = f"{programs}:{os.environ['PATH']}"
        process = subprocess.run(
            ["bash", SCRIPT, *(arguments or (bundle, out))],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path, **variables, **environment},
        )
        lines = log.read_text().splitlines() if log.exists() else []
        summary = out / "summary.csv"
        rows = list(csv.DictReader(summary.open())) if summary.exists() else []
        return process.returncode, lines, rows, process.stderr

    return call


def test_each_file_is_built_once_and_timed_with_and_without_copies(run):
    code, lines, rows, _ = run(BATCH="4", SECONDS_EACH="3")
    assert code == 0
    builds = [line for line in lines if "--onnx=" in line]
    assert [Path(line.split(".onnx")[0]).suffix for line in builds] == [".fp32", ".fp16", ".int8"]
    assert all("--stronglyTyped --noTF32" in line for line in builds)
    assert all("--optShapes=frames:4x160x192x3" in line for line in builds)
    timed = [line for line in lines if "--loadEngine=" in line]
    assert ["--noDataTransfers" in line for line in timed] == [False, True] * 3
    assert all("--useCudaGraph" in line and "--duration=3" in line for line in timed)
    ours = [row for row in rows if row["reader"] == "finedge"]
    assert lines[-1].startswith("finedge benchmark")
    assert ours[0]["median_latency_ms"] == "0.4"


def test_a_row_has_the_medians_of_the_exported_times(run):
    row = run(files=FILES[:1])[2][0]
    numbers = (row["queries"], row["median_latency_ms"], row["median_compute_ms"])
    assert numbers == ("3", "2.0000", "1.0000")


def test_a_missing_file_is_skipped_aloud(run):
    code, _, rows, stderr = run(files=FILES[:1])
    assert code == 0
    assert "fp16: the bundle holds no model.fp16.onnx: skipped" in stderr
    assert {row["precision"] for row in rows if row["reader"] == "trtexec"} == {"fp32"}


def test_a_build_that_fails_does_not_stop_the_others(run):
    code, lines, rows, stderr = run(fail="model.fp16.onnx")
    assert code == 1
    assert "fp16-build: exit code 1" in stderr
    failed = [row for row in rows if row["exit_code"] == "1"]
    assert [(row["precision"], row["median_latency_ms"]) for row in failed] == [("fp16", "")]
    assert any("int8.engine" in line for line in lines)


def test_a_run_without_times_is_a_failure_with_an_empty_row(run):
    code, _, rows, stderr = run(files=FILES[:1], times=[])
    assert code == 1
    assert "fp32-with: no times in" in stderr
    assert rows[0]["queries"] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("one",), "usage: benchmarks/trtexec.sh BUNDLE OUT"), (("/none", "out"), "is no bundle")],
)
def test_wrong_arguments_exit_2_and_say_what_is_expected(run, arguments, words):
    code, lines, _, stderr = run(arguments=arguments)
    assert (code, lines) == (2, [])
    assert words in stderr


def test_without_trtexec_it_says_what_to_install(run):
    code, _, _, stderr = run(TRTEXEC="/no/such/trtexec")
    assert code == 2
    assert "libnvinfer-bin" in stderr


def test_the_script_is_clean_to_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here: apt-get install shellcheck")
    process = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout
