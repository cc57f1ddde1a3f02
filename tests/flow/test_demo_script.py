"""examples/demo.sh with a stand-in for `finedge`: which commands run, in which order."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples/demo.sh"
STAND_IN = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in "$FAILS"*) exit 3;; esac
[ "$1" = train ] && mkdir -p "$RUNS"
exit 0
"""


@pytest.fixture
def demo(tmp_path):
    """Run the demo; return what `subprocess.run` returns, and the calls of `finedge`."""
    stand_in = tmp_path / "finedge"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    (tmp_path / "photos").mkdir()

    def run(fails="nothing"):
        calls = tmp_path / "calls"
        path = f"{tmp_path}:{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", str(SCRIPT), "photos", "out"],
            cwd=tmp_path,
            env={"PATH": path, "CALLS": str(calls), "FAILS": fails, "RUNS": "out/photos"},
            capture_output=True,
            text=True,
            check=False,
        )
        return result, calls.read_text().splitlines()

    return run


def test_both_models_take_every_step_before_the_benchmark(demo):
    result, calls = demo()
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("/out/photos/report.html")
    for model in ("plain", "cnl"):
        steps = [call.split()[0] for call in calls if f"photos/{model}" in call][:4]
        assert steps == ["train", "export", "calibrate", "verify"]
        assert f"{model}: == train {model}" in result.stderr
    assert [call.split()[0] for call in calls[-3:]] == ["classify", "benchmark", "report"]


def test_a_failed_training_ends_the_demo_with_its_exit_code(demo):
    result, calls = demo(fails="train --quick --model cnl")
    assert result.returncode == 3
    assert not any(call.startswith(("export out/photos/cnl", "benchmark")) for call in calls)
