"""The stand-in for the CUDA driver, and `benchmarks` as a package."""

from pathlib import Path

import pytest

from tests.runtime.trt.plugin.conftest import standin_libcuda  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
