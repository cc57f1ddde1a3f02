from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from finedge.spec import Method

from .pixels import pixels

SCRIPT = Path(__file__).with_name("run.sh")
CANNOT = 77  # automake's number for a skipped test
# OpenCV's area filter uses slightly different arithmetic on ARM. On noise, 0.0007 % of the values
# differ by 1.
GREY_LEVELS = {**dict.fromkeys(get_args(Method), 0), "cv2-area": 1}


@pytest.mark.slow
def test_the_device_part_gives_equal_answers_on_aarch64() -> None:
    cache = Path(os.environ.get("FINEDGE_CACHE", Path.home() / ".cache/finedge")) / "aarch64"
    process = subprocess.run(
        ["bash", SCRIPT, cache],
        env={**os.environ, "PYTHON": sys.executable},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode == CANNOT:
        pytest.skip(process.stderr.splitlines()[-1])
    assert process.returncode == 0, process.stderr
    stages = {
        stage["name"]: stage for stage in json.loads((cache / "verify.json").read_text())["stages"]
    }
    assert stages["preprocess"]["max_abs"] == 0
    assert {
        name: s["pass"] for name, s in stages.items() if s["pass"] is not None and not s["pass"]
    } == {}
    assert all(
        f"logits model.{file}.onnx/logits" in stages
        for file in ("fp32", "fp16", "int8", "int8.cpu")
    )
    lines = [json.loads(line) for line in (cache / "classify.jsonl").read_text().splitlines()]
    assert [line["top"][0]["label"] for line in lines if line["status"] != "no_signal"]
    assert " passed" in (cache / "pytest.txt").read_text()
    with np.load(cache / "pixels.npz") as arrays:
        differences = {
            method: int(np.abs(arrays[method].astype(int) - own.astype(int)).max())
            for method, own in pixels().items()
        }
    assert all(differences[method] <= limit for method, limit in GREY_LEVELS.items()), differences
