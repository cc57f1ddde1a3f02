import errno
import json
import os
from dataclasses import replace

import pytest

from finedge.bundle import Bundle
from finedge.errors import BundleError
from finedge.runtime.cuda.gpu import Gpu
from finedge.runtime.trt.build import store as store_module
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.options import BuildTarget, board_name
from finedge.runtime.trt.build.seal import sealed
from finedge.runtime.trt.build.store import EngineStore, engines_folder, file_name, machine_name
from tests.runtime.trt.build.conftest import KEY


def test_the_name_says_gpu_library_precision_and_key():
    assert file_name(KEY) == f"orin-trt10.3.0.30-int8-{KEY.digest()[:8]}.engine"
    assert file_name(replace(KEY, gpu="NVIDIA GeForce RTX 4090")).startswith(
        "nvidia-geforce-rtx-4090-trt10.3.0.30-int8-"
    )
    assert file_name(
        replace(KEY, gpu="sm86+sm89", library="tensorrt-rtx", version="1.7.1")
    ).startswith("sm86+sm89-rtx1.7.1-")


@pytest.mark.parametrize(
    ("processors", "memory_mib", "board"),
    [
        (4, 3410, "4sm-4gib"),
        (8, 7620, "8sm-8gib"),
        (8, 15655, "8sm-16gib"),
        (14, 30535, "14sm-32gib"),
        (16, 62841, "16sm-64gib"),
    ],
)
def test_boards_with_the_same_gpu_share_no_engine_and_no_timings(processors, memory_mib, board):
    """Every Orin is called Orin and is of compute capability 8.7."""
    device = Gpu("Orin", "8.7", True, processors, memory_mib, "12.6")
    key = replace(KEY, gpu=BuildTarget.of(device).gpu)
    assert machine_name(key) == f"orin-{board}-trt10.3.0.30"
    assert file_name(key).startswith(f"{machine_name(key)}-int8-")


def test_a_discrete_gpu_is_told_by_name_and_multiprocessors():
    device = Gpu("NVIDIA GeForce RTX 4090", "8.9", False, 128, 24080, "13.0")
    assert board_name(device) == "NVIDIA GeForce RTX 4090 (128SM)"


def test_the_record_is_beside_the_engine(tmp_path):
    store = EngineStore(tmp_path / "engines")
    engine = store.keep(KEY, b"bytes", {"seconds": 1.5})
    assert sorted(p.suffix for p in store.folder.iterdir()) == [".engine", ".json"]
    assert engine.record["bytes"] == 5
    assert store.find(KEY).record == {
        **engine.record,
        "key": {**KEY.to_json(), "profile": [1, 1, 8], "flags": list(KEY.flags)},
    }


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: bytes([b[0] ^ 1]) + b[1:], lambda b: b""]
)
def test_damaged_bytes_are_never_handed_out(tmp_path, damage):
    engine = EngineStore(tmp_path).keep(KEY, b"bytes", {})
    engine.path.write_bytes(damage(b"bytes"))
    with pytest.raises(BundleError, match=r"sha256"):
        EngineStore(tmp_path).find(KEY).read()


def test_an_engine_and_its_record_are_nothing_without_each_other(tmp_path):
    engine = EngineStore(tmp_path).keep(KEY, b"bytes", {})
    json_file = engine.path.with_suffix(".json")
    record = json_file.read_text()
    json_file.unlink()
    assert EngineStore(tmp_path).find(KEY) is None
    json_file.write_text(record)
    engine.path.unlink()
    assert EngineStore(tmp_path).find(KEY) is None


def test_a_damaged_record_is_ignored_with_a_word(tmp_path, caplog):
    EngineStore(tmp_path).keep(KEY, b"bytes", {}).path.with_suffix(".json").write_text("{")
    assert EngineStore(tmp_path).find(KEY) is None
    assert "not an engine's record" in caplog.text


def test_the_record_of_another_version_is_stale_and_named_once(tmp_path, caplog):
    """Its engine is built again, and nothing fails."""
    store = EngineStore(tmp_path)
    file = store.keep(KEY, b"bytes", {}).path.with_suffix(".json")
    file.write_text(json.dumps(sealed({**json.loads(file.read_text()), "schema": 2})))
    for _ in range(2):
        assert store.find(KEY) is None
    assert caplog.text.count(f"{file} was written by another version of finedge (schema 2") == 1
    assert store.keep(KEY, b"new", {}).path.with_suffix(".json") == file
    assert store.find(KEY).read() == b"new"


def test_the_library_keeps_its_name_in_json():
    """It was called flavour: engines of before the rename are found by the same digest."""
    assert KEY.to_json()["flavour"] == KEY.library
    assert "library" not in KEY.to_json()
    assert EngineKey.from_json(json.loads(json.dumps(KEY.to_json()))) == KEY
    digest_before = "c32fa7bd23ca8281ab22479ecf8384879ecc7ce7da7e555bd70e9802cbe0edac"
    assert KEY.digest() == digest_before


def test_a_full_disk_leaves_no_engine_with_a_record(tmp_path, monkeypatch):
    store = EngineStore(tmp_path / "engines")
    monkeypatch.setattr(store_module, "write_text", _no_space)
    with pytest.raises(OSError, match="No space"):
        store.keep(KEY, b"bytes", {})
    assert store.find(KEY) is None
    assert [p.suffix for p in store.folder.iterdir()] == [".engine"]


def _no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_nearest_is_of_the_same_precision_first(tmp_path):
    store = EngineStore(tmp_path)
    same = store.keep(replace(KEY, gpu="Thor", version="11.4"), b"a", {})
    store.keep(replace(KEY, precision="fp16"), b"b", {})
    assert store.nearest(KEY).path == same.path


def test_a_read_only_bundle_keeps_engines_in_the_cache(tiny_bundle, tmp_path, monkeypatch):
    inside = EngineStore.of(tiny_bundle)
    inside.keep(KEY, b"old", {})
    assert inside.folder == tiny_bundle.path / "engines"
    monkeypatch.setattr(store_module.os, "access", lambda *_: False)  # chmod does not stop root
    outside = EngineStore.of(tiny_bundle)
    assert outside.folder == tmp_path / "cache" / "engines" / tiny_bundle.digest()
    assert outside.find(KEY).read() == b"old"
    other = replace(KEY, precision="fp16")
    assert outside.keep(other, b"new", {}).path.is_relative_to(tmp_path / "cache")
    assert outside.find(other).read() == b"new"


def test_engines_survive_a_new_stage_and_are_not_in_the_manifest(tiny_bundle):
    EngineStore.of(tiny_bundle).keep(KEY, b"bytes", {})
    tiny_bundle.extend("later", {"note.txt": b"x"}, {})
    loaded = Bundle.load(tiny_bundle.path)
    assert EngineStore.of(loaded).find(KEY).read() == b"bytes"
    assert not any("engine" in name for name in loaded.files)
    assert engines_folder(loaded) == loaded.path / "engines"
