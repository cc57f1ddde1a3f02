from __future__ import annotations

import errno
import json
import os
import subprocess

import pytest

from finedge import bundle as bundle_module
from finedge.bundle import FORMAT, Bundle, Tap
from finedge.errors import BundleError, UsageError
from finedge.spec import Input, Preprocess, Spec


def test_what_was_written_is_read_back(bundle, spec):
    loaded = Bundle.load(bundle.path)
    assert loaded.spec == spec
    assert loaded.files == bundle.files
    assert loaded.provenance == {"train": {"run": "r"}}
    assert loaded.variants() == ("fp32",)
    assert loaded.name == "birds"


def test_taps_survive(tmp_path, spec):
    made = Bundle.create(
        tmp_path / "b", spec, files={}, taps=(Tap("layer1", "relu_3"),), provenance={}
    )
    assert Bundle.load(made.path).taps == (Tap("layer1", "relu_3"),)


def test_a_stage_adds_its_files_and_keeps_the_rest(bundle):
    (bundle.path / "report.json").write_text("{}")
    bundle.extend("calibrate", {"model.int8.onnx": b"int8"}, {"method": "max"})
    loaded = Bundle.load(bundle.path)
    assert loaded.file("model.fp32.onnx").read_bytes() == b"a model"
    assert loaded.file("model.int8.onnx").read_bytes() == b"int8"
    assert loaded.provenance == {"train": {"run": "r"}, "calibrate": {"method": "max"}}
    assert (loaded.path / "report.json").exists(), "a sidecar was lost"
    assert loaded.variants() == ("fp32", "int8")


def test_replacing_a_file_does_not_touch_the_old_bundle_before_the_rename(bundle, monkeypatch):
    monkeypatch.setattr(bundle_module, "write_text", _no_space)
    with pytest.raises(OSError, match="No space"):
        bundle.extend("export", {"model.fp32.onnx": b"another"}, {})
    assert Bundle.load(bundle.path).file("model.fp32.onnx").read_bytes() == b"a model"
    assert [p.name for p in bundle.path.parent.iterdir()] == ["birds.finedge"], (
        "work files were left behind"
    )


def _no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_bundle(tmp_path, spec):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        made = Bundle.create(
            disk / "b.finedge", spec, files={"model.fp32.onnx": b"x" * 50_000}, provenance={}
        )
        with pytest.raises(OSError, match="No space"):
            made.extend("calibrate", {"model.int8.onnx": b"y" * 400_000}, {})
        assert Bundle.load(made.path).variants() == ("fp32",)
        assert [p.name for p in disk.iterdir()] == ["b.finedge"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", ["model.fp32.onnx", "golden.npz"])
def test_one_flipped_byte_is_refused(bundle, name):
    file = bundle.path / name
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=name):
        Bundle.load(bundle.path)


def test_a_missing_file_is_named(bundle):
    (bundle.path / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden\.npz is missing"):
        Bundle.load(bundle.path)


def test_a_newer_format_says_update(bundle):
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    (bundle.path / "manifest.json").write_text(json.dumps({**manifest, "format": FORMAT + 1}))
    with pytest.raises(BundleError, match="update finedge"):
        Bundle.load(bundle.path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": "x"}'])
def test_a_damaged_manifest_is_a_bundle_error(bundle, content):
    (bundle.path / "manifest.json").write_text(content)
    with pytest.raises(BundleError):
        Bundle.load(bundle.path)


def test_a_spec_with_an_unknown_key_is_refused(bundle):
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["spec"]["library"] = "new"
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="library"):
        Bundle.load(bundle.path)


def test_a_folder_that_is_no_bundle_says_so(tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.load(tmp_path)
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.load(tmp_path / "missing")


@pytest.mark.parametrize("name", [".birds.finedge.old-77", ".birds.finedge.old-x0123abcd"])
def test_an_interrupted_replacement_is_taken_back(bundle, name, caplog):
    bundle.path.rename(bundle.path.with_name(name))
    assert Bundle.load(bundle.path).files == bundle.files
    assert [p.name for p in bundle.path.parent.iterdir()] == ["birds.finedge"]
    assert "put back" in caplog.text


def test_an_absent_variant_says_how_to_make_it(bundle):
    with pytest.raises(BundleError, match="finedge calibrate"):
        bundle.file("model.int8.onnx")


@pytest.mark.parametrize("labels", [(), ("crow", "finch", "crow")])
def test_labels_are_there_and_each_once(labels):
    with pytest.raises(UsageError, match="label"):
        Spec("m", "b", labels, Preprocess(8, 8), Input(8, 8))


def test_a_bundle_of_the_first_version_opens(bundle):
    file = bundle.path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["views"], manifest["spec"]["preprocess"]["frame"]
    file.write_text(json.dumps({**manifest, "provenance": {"train": {}}}))
    loaded = Bundle.load(bundle.path)
    assert loaded.views == ()
    assert loaded.training.run is None
    assert loaded.training.data.seed == 0


DAMAGED = [
    {"data": []},
    {"data": {"root": 3}},
    {"data": {"root": "a\0b"}},
    {"data": {"seed": -1}},
    {"run": ["r"]},
]


@pytest.mark.parametrize("record", DAMAGED)
def test_a_damaged_record_names_its_place(bundle, record):
    with pytest.raises(BundleError, match=r"provenance\.train\.(data|run)"):
        bundle.extend("train", {}, record).training  # noqa: B018
