"""The C++ plugin against TensorRT's own headers, where they are at hand.

The other tests use a stand-in header. Tried with 10.3.0, 10.7.0, 10.13.3, 10.16.1, 11.0.0, 11.1.0.
"""

from __future__ import annotations

import shutil

import pytest

from tests.jetson.plugin.conftest import (
    HERE,
    HERE_CPU,
    SOURCE,
    STANDIN,
    PluginBuild,
    build_driver,
    run,
)
from tests.jetson.plugin.real_headers import MISSING, NO_CUDA, cuda_include, headers
from tests.jetson.plugin.test_plugin import CASES, check

HEADERS = [pytest.param(version, id=version.version) for version in headers()]
WARNINGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="module", params=HEADERS or [None])
def folders(request):
    """The folders of one version's headers, and of CUDA's."""
    if request.param is None:
        pytest.skip(MISSING)
    if shutil.which("g++") is None:
        pytest.skip("not installed: g++ (make setup-system)")
    cuda = cuda_include()
    if cuda is None:
        pytest.skip(NO_CUDA)
    return request.param.folder, cuda


@pytest.fixture(scope="module")
def real_build(folders, tmp_path_factory):
    """The plugin as its users build it, for the harness of the other tests.

    The harness keeps the stand-in header: where the plugin's classes were laid out in another way,
    it would call the wrong functions.
    """
    HERE_CPU.need()
    folder = tmp_path_factory.mktemp("real_headers")
    options = [f"-DNVINFER_INCLUDE={folders[0]}", f"-DCUDA_INCLUDE={folders[1]}"]
    run("cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror", *options)
    run("cmake", "--build", folder)
    (folder / "standin").mkdir()
    (folder / "standin" / "NvInferRuntime.h").symlink_to(STANDIN)
    harness = [HERE / "harness.cpp", "-ldl", "-o", folder / "harness"]
    run("g++", *WARNINGS, "-O1", f"-I{folder}/standin", "-rdynamic", *harness)
    build_driver(HERE_CPU, folder / "driver")
    return PluginBuild(HERE_CPU, folder)


@pytest.mark.parametrize("source", ["plugin.cpp", "autoload.cpp"])
def test_a_source_compiles_without_a_warning(source, folders):
    includes = [word for folder in folders for word in ("-isystem", folder)]
    run("g++", *WARNINGS, *includes, f"-I{SOURCE}", "-fsyntax-only", SOURCE / source)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_plugin_of_a_real_header_gives_the_numbers(case, real_build, tmp_path):
    check(real_build, case, tmp_path)
