"""The CUDA driver asked directly: a stand-in for libcuda, and none at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.cuda.libcuda import driver_version, gpu_name
from tests.runtime.trt.plugin.conftest import standin_libcuda  # noqa: F401 - a fixture


def test_the_driver_is_asked_without_a_package_and_may_be_missing(standin_libcuda):  # noqa: F811
    assert driver_version(str(standin_libcuda)) // 1000 == 12
    assert driver_version("libnocuda.so.1") == 0


def test_the_driver_itself_names_the_gpu(standin_libcuda):  # noqa: F811
    # Loaded here, the stand-in would be this process's driver from now on.
    code = "import sys; from finedge.runtime.cuda.libcuda import gpu_name as name"
    code += "; print(name(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(standin_libcuda)]
    environment = {**os.environ, "STANDIN_CC": "8.9"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "stand-in 8.9\n"


def test_a_machine_without_a_driver_says_so():
    with pytest.raises(SystemProblem, match="no CUDA driver: no-such-libcuda"):
        gpu_name("no-such-libcuda.so.1")
