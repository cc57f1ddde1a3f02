"""The correctness part of benchmarks/gpu/attention.py, with the kernel on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[4] / "benchmarks" / "gpu" / "attention.py"


def test_the_script_finds_the_kernel_as_exact_as_float16_allows(standin_libcuda, tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "attention.json"
    words = [sys.executable, SCRIPT, out, "--small", "--library", standin_libcuda]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert len(result["rows"]) == 4
    assert all(row["max_abs"]["kernel"] < 1e-3 for row in result["rows"])
    assert {row["plan"]["splits"] for row in result["rows"]} == {1, 2}
    assert result["target"] == "not run"
