"""What the build makes and refuses, and its arithmetic against the Python plugin's."""

from __future__ import annotations

import json
import random
import re
import subprocess
from dataclasses import asdict

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.trt.plugin.image import image_for, images
from finedge.runtime.trt.plugin.launch import plan
from tests.jetson.plugin.conftest import HERE, ROOT, SOURCE, run

PLANS = ROOT / "tests" / "runtime" / "trt" / "plugin" / "plans.json"
# Ubuntu 22.04 of JetPack 6 has glibc 2.35 and the libstdc++ of GCC 12.
NEWEST = {"GLIBC": (2, 34), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13), "GCC": (12,)}


@pytest.fixture(scope="module")
def ask(built):
    """Ask launch.h and image.h: one question a line."""
    program = built.folder / "arithmetic"
    run(
        "g++",
        *("-std=c++17", "-Wall", "-Wextra", "-Werror"),
        f"-I{SOURCE}",
        HERE / "arithmetic.cpp",
        built.folder / "images.cpp",
        "-o",
        program,
    )

    def answers(questions):
        process = subprocess.run(
            [program], input="\n".join(questions), capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in process.stdout.splitlines()]

    return answers


ORDER = ("queries", "keys", "d", "dv", "shared", "batch", "processors", "resident")


def question(case):
    return "plan " + " ".join(str(int(case[name])) for name in ORDER)


def test_plans_are_those_of_the_table(ask):
    plans = json.loads(PLANS.read_text())["plans"]
    for case, answer in zip(plans, ask(map(question, plans)), strict=True):
        assert answer == {name: case[name] for name in answer}


def test_plans_of_random_shapes_are_those_of_python(ask):
    random_ = random.Random(0)
    most = dict(zip(ORDER, (800, 12544, 512, 512, 1, 64, 192, 16), strict=True))
    cases = [{name: random_.randint(1, n) for name, n in most.items()} for _ in range(500)]
    cases = [{**case, "shared": bool(random_.randint(0, 1))} for case in cases]
    plans = [asdict(plan(**case)) for case in cases]
    for expected, answer in zip(plans, ask(map(question, cases)), strict=True):
        names = ("kernel", "splits", "workspace_bytes")
        assert [answer[name] for name in names] == [expected[name] for name in names]
    assert len({p["splits"] for p in plans}) > 10


def test_maps_are_those_of_the_table(ask):
    maps = json.loads(PLANS.read_text())["maps"]
    answers = ask(f"map {m['form']} {m['kind']} {m['channels']} {m['positions']}" for m in maps)
    assert answers == [m["layout"] for m in maps]


def choose(capability, driver):
    try:
        image = image_for(capability, driver=driver)
    except SystemProblem:
        return None
    return [image.architecture, image.is_ptx]


def test_the_image_is_the_one_that_the_python_plugin_chooses(ask):
    devices = [
        (capability, driver)
        for capability in (75, 80, 86, 87, 89, 90, 110, 120)
        for driver in (11080, 12000, 12040, 12050, 12060, 12090, 13000)
    ]
    assert ask(f"image {c} {d}" for c, d in devices) == [choose(*device) for device in devices]


def undefined_symbols(library, prefix=""):
    """Return the symbols that a library needs from others, with their versions."""
    lines = run(f"{prefix}nm", "-D", "--undefined-only", library).stdout.splitlines()
    return [line.split()[-1] for line in lines]


def test_the_plugin_needs_nothing_of_tensorrt_or_cuda(built):
    foreign = [
        s
        for s in undefined_symbols(built.plugin)
        if re.search(r"nvinfer|getPluginRegistry|^cu[A-Z]|^cuda", s)
    ]
    assert foreign == []
    libraries = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", built.plugin).stdout)
    assert all(re.match(r"lib(c|m|dl|stdc\+\+|gcc_s)\.so|ld-linux", name) for name in libraries), (
        libraries
    )


def test_the_plugin_exports_its_two_entry_points_only(built):
    lines = run("nm", "-D", "--defined-only", built.plugin).stdout.splitlines()
    assert {line.split()[2] for line in lines if line.split()[1] == "T"} == {
        "getCreators",
        "setLoggerFinder",
    }


def test_the_plugin_holds_whole_images_and_ptx_ends_with_a_zero(built):
    library = built.plugin.read_bytes()
    assert images()
    assert all(image.read() in library for image in images())


def test_a_library_built_with_the_stand_in_is_not_installed(built, tmp_path):
    process = subprocess.run(
        ["cmake", "--install", built.folder, "--prefix", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert "TENSORRT_ROOT" in process.stderr
    assert "libnvinfer-dev" in process.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_without_tensorrt_the_build_says_what_it_needs(tmp_path):
    process = subprocess.run(
        ["cmake", "-S", SOURCE, "-B", tmp_path], capture_output=True, text=True, check=False
    )
    if process.returncode == 0:
        pytest.skip("TensorRT's headers are installed here")
    assert "libnvinfer-dev" in process.stderr
    assert "TENSORRT_ROOT" in process.stderr


def versions(library, prefix):
    """Return the newest version needed of each versioned library: {"GLIBC": (2, 34), ...}."""
    newest = {}
    for family, number in re.findall(
        r"@([A-Z]+)_([\d.]+)", "\n".join(undefined_symbols(library, prefix))
    ):
        newest[family] = max(newest.get(family, ()), tuple(map(int, number.split("."))))
    return newest


def test_ubuntu_22_04_has_the_libraries_that_a_cross_build_needs(cross_built):
    for library in (cross_built.plugin, cross_built.autoload):
        assert "AArch64" in run("aarch64-linux-gnu-readelf", "-h", library).stdout
        needed = versions(library, "aarch64-linux-gnu-")
        assert all(number <= NEWEST[family] for family, number in needed.items()), needed
