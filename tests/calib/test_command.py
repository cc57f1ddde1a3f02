import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from finedge.bundle import PROJECTED_FILE, Bundle
from finedge.calib.command import calibrate
from finedge.calib.options import Int8Options
from finedge.calib.ranges.collectors import COLLECTORS
from finedge.cli import main
from finedge.data import content_digest, open_dataset, split_of_dataset
from finedge.data.stored_split import FILE
from finedge.golden import read_golden
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend

FILES = ["model.int8.onnx", "model.int8.cpu.onnx"]


@pytest.mark.parametrize("method", COLLECTORS)
def test_both_files_join_the_bundle(bundle, picture_folder, method):
    result = calibrate(bundle.path, data=picture_folder, int8=Int8Options(images=16, method=method))
    assert (result["images"], result["method"], list(result["files"])) == (16, method, FILES)
    loaded = Bundle.load(bundle.path)
    assert loaded.variants() == ("fp32", "int8")
    assert loaded.provenance["export"] == bundle.provenance["export"]


def test_the_record_says_all_that_made_the_files(bundle, picture_folder):
    calibrate(bundle.path, data=picture_folder, int8=Int8Options(images=16, seed=3))
    record = Bundle.load(bundle.path).provenance["calibrate"]
    assert (record["source"], record["model_sha256"]) == (
        "model.fp32.onnx",
        bundle.files["model.fp32.onnx"],
    )
    assert (record["method"], record["seed"], len(record["images_sha256"])) == ("max", 3, 16)
    assert set(record["images_sha256"]) <= {
        content_digest(p) for p in (picture_folder / "train").rglob("*.png")
    }
    assert all(low <= high for low, high in record["ranges"].values())
    assert list(record["placements"]) == FILES
    assert set(record["versions"]) == {"finedge", "onnx", "onnx_ir", "onnxruntime"}


def test_both_files_are_made_of_the_form_for_int8_where_there_is_one(bundle, tiny, picture_folder):
    model = onnx.ModelProto.FromString(tiny.model.SerializeToString())
    marked = next(n for n in model.graph.node if n.op_type == "Conv" and n.name)
    marked.name = "marked"
    with_form = bundle.extend("export", {PROJECTED_FILE: model.SerializeToString()}, {"opset": 20})
    calibrate(bundle.path, data=picture_folder, int8=Int8Options(images=8))
    loaded = Bundle.load(bundle.path)
    record = loaded.provenance["calibrate"]
    assert (record["source"], record["model_sha256"]) == (
        PROJECTED_FILE,
        with_form.files[PROJECTED_FILE],
    )
    for name in FILES:
        assert "marked" in record["placements"][name]["int8"]
        assert "marked" in {n.name for n in onnx.load(loaded.file(name)).graph.node}


def test_the_golden_frame_gets_the_answers_of_both_files(bundle, picture_folder):
    before = read_golden(bundle)
    calibrate(bundle.path, data=picture_folder, int8=Int8Options(images=16))
    loaded = Bundle.load(bundle.path)
    golden = read_golden(loaded)
    assert set(golden) == {*before, *(f"{name}/logits" for name in FILES)}
    for name in FILES:
        again = OnnxRuntimeBackend(SessionOptions(exact=True)).open_file(loaded, name)(
            golden["input"][None]
        )["logits"]
        assert np.array_equal(golden[f"{name}/logits"], again)


def test_the_same_seed_makes_the_same_files(bundle, picture_folder, tmp_path):
    twin = shutil.copytree(bundle.path, tmp_path / "twin.finedge")
    for path in (bundle.path, twin):
        calibrate(path, data=picture_folder, int8=Int8Options(images=8, seed=1))
    assert Bundle.load(bundle.path).files == Bundle.load(twin).files


def test_calibrating_again_replaces_the_files(bundle, picture_folder):
    calibrate(bundle.path, data=picture_folder, int8=Int8Options(images=4))
    first = Bundle.load(bundle.path)
    calibrate(bundle.path, data=picture_folder, int8=Int8Options(images=24, method="percentile"))
    second = Bundle.load(bundle.path)
    assert list(first.files) == list(second.files)
    assert all(first.files[name] != second.files[name] for name in FILES)
    assert second.provenance["calibrate"]["method"] == "percentile"


def test_a_refusal_leaves_the_bundle_as_it_was(bundle, picture_folder, tmp_path, capsys):
    copy = shutil.copytree(picture_folder, tmp_path / "copy")
    for victim in (copy / "train" / "level").iterdir():
        shutil.copy(victim, copy / "test" / "level")
    assert main(["calibrate", str(bundle.path), "--data", str(copy)]) == 4
    assert "also in the evaluated splits" in capsys.readouterr().err
    assert Bundle.load(bundle.path) == bundle


@pytest.mark.parametrize("name", ["none", "random"])
def test_data_must_be_images(bundle, name, capsys):
    assert main(["calibrate", str(bundle.path), "--data", name]) == 4
    assert "is not a folder" in capsys.readouterr().err


def test_an_unknown_method_is_a_usage_error(bundle, picture_folder):
    words = ["--data", str(picture_folder), "--method", "percentil"]
    assert main(["calibrate", str(bundle.path), *words]) == 2


def test_the_command_prints_one_object(bundle, picture_folder, capsys):
    assert (
        main(["calibrate", str(bundle.path), "--data", str(picture_folder), "--images", "8"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["images"] == 8


def test_new_images_calibrate_when_they_are_asked_to(bundle, picture_folder, tmp_path, capsys):
    data = shutil.copytree(picture_folder, tmp_path / "data")
    stored = split_of_dataset(open_dataset(data))
    bundle.extend(
        "export", {FILE: replace(stored, splits={**stored.splits, "train": ()}).packed()}, {}
    )
    words = ["calibrate", str(bundle.path), "--data", str(data), "--images", "8"]
    assert main(words) == 4
    assert "--new-images train" in capsys.readouterr().err
    assert main([*words, "--new-images", "train"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["taken"] == 48
    assert Bundle.load(bundle.path).provenance["calibrate"]["data"]["known"] == 24
