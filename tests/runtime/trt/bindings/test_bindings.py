"""Our code through NVIDIA's own Python bindings of six versions of TensorRT, without a GPU.

The bindings are real, the library under them is a mock that is made here: that proves calls, their
arguments, lifetimes and order, and nothing about what TensorRT computes.
"""

from __future__ import annotations

import pytest

from tests.runtime.trt.bindings.conftest import PARTS
from tests.runtime.trt.bindings.mock_library import WHEELS

# The oldest that we take (JetPack 6.1), and the newest.
DEFAULT = ("10.3.0", "11.4.0.106")
VERSIONS = [
    pytest.param(version, marks=() if version in DEFAULT else pytest.mark.slow)
    for version in WHEELS
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("part", PARTS)
def test_our_code_works_through_the_real_bindings(run, version, part):
    failures = run(version).failures(part)
    assert not failures, failures
