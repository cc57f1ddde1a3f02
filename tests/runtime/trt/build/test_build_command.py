import errno
import json
import os
import sys

import pytest

from finedge.errors import BundleError, SystemProblem, UsageError
from finedge.runtime.trt.build.command import build
from finedge.runtime.trt.build.options import FILES
from finedge.runtime.trt.build.store import EngineStore


def test_one_object_tells_about_every_precision(rtx, attention_bundle):
    bundle = attention_bundle()
    result = build(bundle.path, precision="fp32,int8", target="sm86", backend="tensorrt-rtx")
    assert json.loads(json.dumps(result)) == result
    assert list(result["precisions"]) == ["fp32", "int8"]
    for name, shown in result["precisions"].items():
        assert shown["file"] == FILES[name]
        assert (
            bundle.path / "engines" / shown["engine"].rpartition("/")[2]
        ).stat().st_size == shown["bytes"]
        assert shown["summary"]["layers"] > 0
        assert {"key", "seconds", "attention", "memory", "typing"} <= set(shown)


def test_a_precision_that_fails_does_not_keep_the_others_back(rtx, tiny_bundle):
    """The tiny bundle has no fp16 file (exit 4), and TensorRT refuses its INT32 biases (exit 1)."""
    with pytest.raises(
        BundleError, match=r"no fp16 engine: .*holds no model\.fp16\.onnx"
    ) as caught:
        build(tiny_bundle.path, precision="int8,fp16,fp32", target="sm86", backend="tensorrt-rtx")
    shown = caught.value.result["precisions"]
    assert "bias_DequantizeLinear" in shown["int8"]["failed"]
    assert "holds no" in shown["fp16"]["failed"]
    assert shown["fp32"]["bytes"] > 0
    assert len(list((tiny_bundle.path / "engines").glob("*.engine"))) == 1


def test_a_dry_run_builds_nothing_and_shows_key_attention_and_memory(rtx, attention_bundle):
    bundle = attention_bundle()
    shown = build(
        bundle.path, precision="fp16", target="sm86", backend="tensorrt-rtx", dry_run=True
    )["precisions"]["fp16"]
    assert not (bundle.path / "engines").exists()
    assert shown["unsupported"] == []
    assert shown["attention"] == [
        {
            "mode": "decomposed",
            "why": "heads of 16 are left to TensorRT's own kernels (up to 256)",
        }
    ]
    assert shown["memory"]["weights_mib"] >= 0
    (key,) = shown["keys"]
    assert (key["gpu"], key["precision"], key["stored"]) == ("sm86", "fp16", False)
    built = build(bundle.path, precision="fp16", target="sm86", backend="tensorrt-rtx")[
        "precisions"
    ]["fp16"]
    assert built["key"] == key["digest"]
    assert build(
        bundle.path, precision="fp16", target="sm86", backend="tensorrt-rtx", dry_run=True
    )["precisions"]["fp16"]["keys"][0]["stored"]


def test_a_dry_run_refuses_a_typing_that_the_library_lacks(rtx, attention_bundle):
    path = attention_bundle().path
    for dry_run in (False, True):
        with pytest.raises(UsageError, match="--typing weak with tensorrt-rtx"):
            build(path, typing="weak", target="sm86", backend="tensorrt-rtx", dry_run=dry_run)


@pytest.mark.parametrize(
    "options",
    [
        {"workspace_mib": 1 << 50},
        {"workspace_mib": 0},
        {"batch": "2147483648"},
        {"batch": "1,1,99999999999999999999"},
    ],
)
def test_numbers_that_the_library_cannot_hold_are_refused(rtx, attention_bundle, options):
    with pytest.raises(UsageError, match=r"workspace of|batch profile"):
        build(attention_bundle().path, target="sm86", backend="tensorrt-rtx", **options)


def test_a_broken_onnx_is_an_error_with_its_fix(rtx, attention_bundle, tmp_path, finedge):
    package = tmp_path / "broken" / "onnx"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('of another protobuf')")
    paths = os.pathsep.join([str(package.parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = finedge("build", attention_bundle().path, "--dry-run", env=environment)
    assert done.returncode == 3
    assert "the package onnx does not load: RuntimeError: of another protobuf" in done.stderr
    assert "to do: pip install --force-reinstall onnx" in done.stderr


def test_a_full_disk_fails_one_precision_and_not_the_others(rtx, attention_bundle, monkeypatch):
    keep = EngineStore.keep

    def keep_small(store, key, data, record):
        if key.precision == "fp32":
            raise OSError(errno.ENOSPC, "No space left on device")
        return keep(store, key, data, record)

    monkeypatch.setattr(EngineStore, "keep", keep_small)
    path = attention_bundle().path
    with pytest.raises(SystemProblem, match=r"no fp32 engine: .*No space left") as caught:
        build(path, precision="fp32,fp16", target="sm86", backend="tensorrt-rtx")
    precisions = caught.value.result["precisions"]
    assert "free some space" in precisions["fp32"]["failed"]
    assert precisions["fp16"]["bytes"] > 0


def test_a_dry_run_of_what_cannot_be_parsed_lists_the_nodes_and_exits_1(rtx, tiny_bundle, finedge):
    done = finedge(
        "build",
        tiny_bundle.path,
        "--precision",
        "int8-fp32",
        "--backend",
        "tensorrt-rtx",
        "--dry-run",
    )
    assert done.returncode == 1
    shown = json.loads(done.stdout)["precisions"]["int8-fp32"]
    assert [(u["index"], u["name"], u["op"]) for u in shown["unsupported"]] == [
        (0, "bias_DequantizeLinear", "DequantizeLinear")
    ]
    assert "calibrate again" in shown["unsupported"][0]["fix"]
    assert "bias_DequantizeLinear" in done.stderr


@pytest.mark.parametrize("words", ["fp64", "", "fp16,", "FP16"])
def test_an_unknown_precision_is_refused(rtx, attention_bundle, words):
    with pytest.raises(UsageError, match="unknown precision"):
        build(attention_bundle().path, precision=words, backend="tensorrt-rtx")


def test_debug_taps_make_another_engine(rtx, attention_bundle):
    bundle = attention_bundle()
    common = {"precision": "fp32", "target": "sm86", "backend": "tensorrt-rtx"}
    keys = {
        build(bundle.path, **common, debug_taps=taps)["precisions"]["fp32"]["key"]
        for taps in (False, True)
    }
    assert len(keys) == 2
