"""The stand-in for the CUDA driver."""

from tests.runtime.trt.plugin.conftest import standin_libcuda  # noqa: F401 - a fixture
