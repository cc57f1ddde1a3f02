"""What travels to a GPU machine: how it is made, how large it may be, and how it is read there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu import carried, pieces, prepare
from benchmarks.gpu.carried import Carried
from tests.benchmarks.conftest import ROOT

CLASSES = ("Ani", "Boobolink", "Cardinal")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A miniature of CUB: three classes of four pictures."""
    folder = tmp_path / "cub"
    names = [f"{name}/{i:04}.jpg" for name in CLASSES for i in range(4)]
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    listed = "".join(f"{i}, {name}\n" for i, name in enumerate(names))
    (folder / "images.txt").write_text(listed)
    flags = "".join(f"{i}, {i % 2}\n" for i in range(len(names)))
    (folder / "train_test_split.txt").write_text(flags)
    monkeypatch.setattr(pieces, "PICTURES", folder)
    return folder


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
    return prepare.main()


def test_pictures_are_packed_by_split_and_class(pictures, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "--only", "data", "--out", tmp_path / "gpu") == 0
    data = Carried(tmp_path / "gpu").data
    packed = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.webp"))
    assert len(packed) == 12
    assert packed[0] == "test/Ani/0000.webp"
    assert {path.name for path in (data / "train").iterdir()} == set(CLASSES)
    assert "MiB data" in capsys.readouterr().out


def test_only_whole_classes_are_packed_until_the_room_is_full(pictures, tmp_path, monkeypatch):
    whole = sum(len(pieces._webp(path)) for path in (pictures / "images" / "Ani").iterdir())
    monkeypatch.setattr(pieces, "PACKED", int(whole * 1.5))
    pieces.data(tmp_path)
    assert [path.name for path in (tmp_path / "data" / "train").iterdir()] == ["Ani"]


def test_a_piece_that_cannot_be_made_is_named_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pieces, "PICTURES", tmp_path / "nowhere")
    (tmp_path / "gpu" / "data").mkdir(parents=True)  # of an earlier call
    assert call(monkeypatch, "--only", "data,commit", "--out", tmp_path / "gpu") == 1
    assert "data       missing: no " in capsys.readouterr().out
    assert Carried(tmp_path / "gpu").data is None
    assert Carried(tmp_path / "gpu").digest == carried.digest_of_sources()


def test_an_unknown_piece_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no piece nonsense; pieces: commit, "):
        call(monkeypatch, "--only", "commit,nonsense", "--out", tmp_path / "gpu")
    assert not (tmp_path / "gpu").exists()


def test_more_than_the_machine_takes_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "MOST", prepare.size_of_checkout())
    assert call(monkeypatch, "--only", "commit", "--out", tmp_path) == 1
    assert "MiB with the checkout; at most" in capsys.readouterr().out


def test_the_packages_are_importable_from_the_carried_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PACKAGES", ("tyro", "docstring_parser", "typeguard"))
    pieces.site(tmp_path)
    code = "import tyro, docstring_parser; print(tyro.__file__)"
    environment = Carried(tmp_path).environment()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "site")


def test_a_package_with_compiled_modules_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PACKAGES", ("numpy",))
    with pytest.raises(pieces.Missing, match="compiled"):
        pieces.site(tmp_path)


def test_an_empty_folder_carries_nothing(tmp_path):
    empty = Carried(tmp_path)
    assert (empty.commit, empty.images, empty.data, empty.plugin) == (None, None, None, None)
    assert (empty.bindings, empty.counts) == ((), {})


def test_counts_are_read_by_the_name_of_the_kernel(tmp_path):
    rows = [{"kernel": "a", "products": 1}, {"kernel": "b", "products": 2}]
    (tmp_path / "counts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Carried(tmp_path).counts["b"]["products"] == 2


def test_the_digest_follows_the_sources(tmp_path):
    (tmp_path / "runtime").mkdir()
    source = tmp_path / "runtime" / "x.py"
    source.write_text("1")
    before = carried.digest_of_sources(tmp_path)
    source.write_text("2")
    assert carried.digest_of_sources(tmp_path) != before


@pytest.mark.slow
def test_the_image_for_the_gpu_machine_is_one_that_its_driver_takes(standin_libcuda, tmp_path):
    """The stand-in judges architecture and format as a driver does."""
    pytest.importorskip("nvidia.cuda_nvrtc")
    pieces.images(tmp_path)
    code = (
        "import ctypes, pathlib, sys; from benchmarks.gpu.device import retain_context; "
        "from finedge.runtime.trt.plugin.driver import Driver; "
        "driver = Driver(sys.argv[1], folder=pathlib.Path(sys.argv[2])); retain_context(driver); "
        "print(driver.kernels().image.path.name)"
    )
    environment = Carried(tmp_path).environment() | {"STANDIN_CC": "9.0"}
    command = [sys.executable, "-c", code, standin_libcuda, Carried(tmp_path).images]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.strip() == "cross_layer_attention.sm_90.cubin", done.stderr


@pytest.fixture(scope="module")
def carried_plugin(tmp_path_factory):
    """The folder of the C++ plugin, its harness and its cases, compiled once."""
    if not all(map(shutil.which, ("g++", "cmake", "readelf"))):
        pytest.skip("needs g++, cmake and readelf: make setup-system")
    folder = tmp_path_factory.mktemp("carried")
    pieces.plugin(folder)
    return Carried(folder).plugin


@pytest.mark.slow
def test_the_carried_plugin_answers_every_case(carried_plugin, standin_libcuda, monkeypatch):
    from benchmarks.gpu.parts.plugin import called

    monkeypatch.setenv("LD_LIBRARY_PATH", str(standin_libcuda.parent))
    rows = {
        case.name: called(carried_plugin, case)
        for case in sorted((carried_plugin / "cases").iterdir())
    }
    assert len(rows) >= 10
    assert {name: row for name, row in rows.items() if not row["pass"]} == {}


@pytest.mark.slow
def test_a_wrong_answer_of_the_carried_plugin_is_seen(
    carried_plugin, standin_libcuda, tmp_path, monkeypatch
):
    from benchmarks.gpu.parts import plugin as part

    place = shutil.copytree(carried_plugin, tmp_path / "plugin")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(standin_libcuda.parent))
    case = place / "cases" / "hwc8"
    expected = np.load(case / part.EXPECTED)
    np.save(case / part.EXPECTED, expected + 0.1)
    assert part.called(place, case)["pass"] is False
    (place / "harness").unlink()
    assert "harness" in part.called(place, case)["reason"]


def test_git_ignores_the_folder():
    done = subprocess.run(["git", "check-ignore", ".gpu/data"], cwd=ROOT, capture_output=True)
    assert done.returncode in (0, 128)  # 128: this checkout has no git


@pytest.mark.slow
@pytest.mark.parametrize("version", pieces.VERSIONS)
def test_the_plugin_is_driven_through_the_bindings(version, standin_libcuda, tmp_path, monkeypatch):
    """As on the GPU machine, but with the bindings for this Python and the stand-in driver."""
    from benchmarks.gpu.parts.bindings import of_version
    from tests.runtime.trt.bindings.conftest import require_tools
    from tests.runtime.trt.bindings.mock_library import make, wheel
    from tests.wheels import folder_or_skip

    require_tools()
    folder_or_skip(wheel(version))
    folder = make(version, tmp_path / version)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    rows = list(of_version(folder, library=str(standin_libcuda), seconds=120))
    assert [row["test"] for row in rows] == ["plain"], rows
    assert rows[0]["pass"]
    assert version.startswith(rows[0]["version"])


def test_bindings_that_do_not_load_are_a_row_with_the_reason(tmp_path):
    from benchmarks.gpu.parts.bindings import of_version

    (row,) = of_version(tmp_path, library="none", seconds=60)
    assert row["pass"] is False
    assert "tensorrt_bindings" in row["reason"]
