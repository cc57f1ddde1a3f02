"""The stand-in for the CUDA driver, and a run of `all.py` on a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.trt.plugin.conftest import standin_libcuda  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "all.py"


@pytest.fixture
def run():
    """A function: the rows of a run into a folder, and what it printed."""
    pytest.importorskip("torch")

    def call(out, *options, script=SCRIPT, prepare=None, **environment):
        command = [sys.executable, script, out, "--small", *options]
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
            preexec_fn=prepare,
        )
        assert done.returncode == 0, done.stderr
        lines = (out / "results.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], done.stdout

    return call


def statuses(rows):
    """Return the status of each part."""
    return {row["part"]: row["status"] for row in rows if "status" in row}
