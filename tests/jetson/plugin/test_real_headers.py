"""The C++ plugin against TensorRT's own headers, where they are at hand.

The other tests use a stand-in header. Tried with 10.3.0, 10.7.0, 10.13.3, 10.16.1, 11.0.0, 11.1.0.
"""

from __future__ import annotations

import shutil

import pytest

from tests.jetson.plugin.conftest import SOURCE, run
from tests.jetson.plugin.real_headers import MISSING, NO_CUDA, cuda_include, headers

HEADERS = [pytest.param(version, id=version.version) for version in headers()]
WARNINGS = ("-Wall", "-Wextra", "-Werror")


@pytest.fixture(params=HEADERS or [None])
def includes(request):
    """The compiler's options for one version of the headers."""
    if request.param is None:
        pytest.skip(MISSING)
    if shutil.which("g++") is None:
        pytest.skip("not installed: g++ (make setup-system)")
    cuda = cuda_include()
    if cuda is None:
        pytest.skip(NO_CUDA)
    return ["-isystem", request.param.folder, "-isystem", cuda, f"-I{SOURCE}"]


@pytest.mark.parametrize("source", ["plugin.cpp", "autoload.cpp"])
def test_a_source_compiles_without_a_warning(source, includes):
    run("g++", "-std=c++17", *WARNINGS, *includes, "-fsyntax-only", SOURCE / source)
