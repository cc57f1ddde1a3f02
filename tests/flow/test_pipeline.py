"""All stages in the order of a user: train, export, calibrate, verify, classify, report."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.data import open_dataset
from finedge.image import read_image


def finedge(*arguments):
    """Run a command in this process; return its exit code and the JSON lines of stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([str(a) for a in arguments])
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def ok(*arguments):
    code, lines = finedge(*arguments)
    assert code == 0, (arguments, lines)
    return lines


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    ok(
        "data",
        "render",
        folder / "data",
        "--classes",
        4,
        "--train",
        24,
        "--val",
        6,
        "--test",
        8,
        "--size",
        96,
    )
    # Pretrained, so that top-1 of FP32 and INT8 agree on any machine. A network that was trained
    # from random weights for seconds has too small a margin.
    small = (
        "--backbone",
        "efficientnet_lite0_s16",
        "--weights",
        "imagenet",
        "--size",
        64,
        "--epochs",
        3,
        "--batch-size",
        16,
    )
    ok("train", "--model", "cnl", *small, "--data", folder / "data", "--out", folder / "run")
    ok("export", folder / "run", "--out", folder / "birds.finedge")
    ok("calibrate", folder / "birds.finedge", "--data", folder / "data", "--images", 32)
    return folder


@pytest.fixture
def copy(work, tmp_path):
    """A bundle that a test may break."""
    return shutil.copytree(work / "birds.finedge", tmp_path / "birds.finedge")


def test_the_bundle_knows_where_it_comes_from(work):
    bundle = Bundle.load(work / "birds.finedge")
    assert bundle.variants() == ("fp32", "fp16", "int8")
    assert set(bundle.provenance) == {"train", "export", "calibrate"}
    assert bundle.provenance["train"]["recipe"]["epochs"] == 3
    parities = bundle.provenance["export"]["parities"]
    assert set(parities) == {
        name for name in bundle.files if name.endswith(".onnx") and "int8" not in name
    }
    assert all(p["max_abs"] <= p["limit"] for p in parities.values())
    macs = bundle.provenance["export"]["attention_cost"]["macs"]
    assert macs["plain"] < macs["fp32"] <= macs["int8"] <= macs["projected"]
    source = "model.projected.onnx" if "model.projected.onnx" in bundle.files else "model.fp32.onnx"
    assert bundle.provenance["calibrate"]["source"] == source
    assert bundle.spec.labels == open_dataset(work / "data").labels


def test_verify_passes_with_the_run_and_real_images(work):
    (result,) = ok("verify", work / "birds.finedge", "--data", work / "data", "--run", work / "run")
    assert result["pass"]
    assert not [s["name"] for s in result["stages"] if s["pass"] is None], "a stage was skipped"
    names = [s["name"] for s in result["stages"]]
    assert [n for n in names if n.startswith("preprocess")] == ["preprocess", "preprocess run"]
    assert all(s["max_abs"] == 0 for s in result["stages"] if s["name"].startswith("preprocess")), (
        "training and runtime see other pixels"
    )


def test_evaluating_the_run_and_its_float_bundle_agree(work):
    (run,) = ok("evaluate", work / "run", "--split", "test")
    (bundle,) = ok("evaluate", work / "birds.finedge", "--variant", "fp32", "--split", "test")
    assert (run["top1"], run["top5"], run["n"]) == (bundle["top1"], bundle["top5"], bundle["n"])
    assert run["n"] == 32


def test_evaluate_names_the_int8_file_it_ran(work):
    (result,) = ok(
        "evaluate",
        work / "birds.finedge",
        "--variant",
        "int8",
        "--split",
        "test",
        "--data",
        work / "data",
    )
    assert result["file"] == "model.int8.cpu.onnx"


def test_classify_prints_a_line_an_image(work):
    lines = ok("classify", work / "birds.finedge", work / "data" / "test", "--topk", 3)
    assert len(lines) == 32
    for line in lines:
        assert set(line) >= {
            "schema",
            "source",
            "frame",
            "captured_at",
            "age_ms",
            "status",
            "top",
            "ms",
            "variant",
            "backend",
            "file",
        }
        assert len(line["top"]) == 3
        assert line["status"] == "ok"


def test_the_moving_scene_is_a_source(work):
    lines = ok("classify", work / "birds.finedge", "test://", "--frames", 3)
    assert len(lines) == 3
    assert [line["frame"] for line in lines] == sorted({line["frame"] for line in lines})


def test_benchmark_and_report(work):
    code, _ = finedge(
        "benchmark", work / "birds.finedge", "--data", work / "data", "--duration", "1s"
    )
    assert code == 0
    report = json.loads((work / "birds.finedge" / "report.json").read_text())
    assert {r["variant"] for r in report["rows"]} == {"fp32", "int8"}
    pytest.importorskip("jinja2")
    (paths,) = ok("report", work / "birds.finedge")
    assert Path(paths["html"]).read_text().startswith("<!doctype html>")
    assert Bundle.load(work / "birds.finedge").variants() == ("fp32", "fp16", "int8"), (
        "a sidecar broke the bundle"
    )


def test_the_device_needs_neither_torch_nor_the_run(work, tmp_path):
    """The bundle alone, in a process that cannot import torch."""
    bundle = shutil.copytree(work / "birds.finedge", tmp_path / "b.finedge")
    picture = open_dataset(work / "data").split("test")[0].path
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm"): raise ImportError(name)
sys.meta_path.insert(0, Block())
from finedge.cli import main
sys.exit(main(["classify", {str(bundle)!r}, {str(picture)!r}]) or main(["verify", {str(bundle)!r}]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_python_in_a_few_lines(work):
    from finedge.runtime.classifier import Classifier

    picture = open_dataset(work / "data").split("test")[0].path
    with Classifier.open(work / "birds.finedge") as classifier:
        (prediction,) = classifier([read_image(picture)])
    assert sum(t.p for t in prediction.top) == pytest.approx(1, abs=1e-5)


def test_one_flipped_byte_is_refused_with_exit_4(copy, capsys):
    file = copy / "model.int8.cpu.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    code, lines = finedge("classify", copy, "test://", "--frames", 1)
    assert (code, lines) == (4, [])


def test_a_model_that_is_not_the_golden_one_fails_verify_at_its_first_tap(copy, work):
    """A retrained model under an old golden frame: the first tap is named, exit 5."""
    bundle = Bundle.load(copy)
    model = onnx.load(bundle.file("model.fp32.onnx"))
    first = next(i for i in model.graph.initializer if len(i.dims) == 4)
    array = onnx.numpy_helper.to_array(first)
    first.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array * 1.5, np.float32), first.name))
    bundle.extend("export", {"model.fp32.onnx": model.SerializeToString()}, {})
    code, (result,) = finedge("verify", copy)
    assert code == 5
    failed = [s["name"] for s in result["stages"] if s["pass"] is False]
    assert failed[0] == f"tap/{bundle.taps[0].name}"


def test_exporting_again_replaces_the_bundle(work, tmp_path):
    first = Bundle.load(shutil.copytree(work / "birds.finedge", tmp_path / "again.finedge"))
    ok("export", work / "run", "--out", first.path)
    again = Bundle.load(first.path)
    assert again.variants() == ("fp32", "fp16")
    assert again.files["model.fp32.onnx"] == first.files["model.fp32.onnx"], (
        "the export is not reproducible"
    )


def test_a_folder_that_is_no_bundle_is_never_replaced(work, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    code, _ = finedge("export", work / "run", "--out", tmp_path)
    assert code == 2
    assert (tmp_path / "thesis.txt").read_text() == "three years"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["export", "no/run", "--out", "x.finedge"], 4),
        (["calibrate", "no.finedge", "--data", "."], 4),
        (["verify", "no.finedge"], 4),
        (["classify", "no.finedge", "test://"], 4),
        (["benchmark", "no.finedge"], 4),
        (["report", "no.finedge"], 4),
        (["evaluate", "no.finedge"], 4),
        (["train", "--data", "no/folder", "--out", "runs/x", "--model", "cnl"], 4),
        (["train", "--data", ".", "--out", "runs/x", "--model", "cnn"], 2),
        (["train", "--data", ".", "--out", "runs/x", "--backbone", "resnet51"], 2),
        (["train", "--data", ".", "--out", "runs/x", "--recipe", "comon"], 2),
    ],
)
def test_wrong_arguments_end_with_the_documented_code(tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    assert finedge(*arguments) == (code, [])
    assert list(tmp_path.iterdir()) == [], "something was left behind"
