"""Engines of a bundle's segments, built by the real TensorRT for RTX. None is run."""

import onnx
import pytest

from finedge.bundle import Bundle
from finedge.early_exit import segment_file
from finedge.errors import FinedgeError
from finedge.graph.onnx_file import read_model
from finedge.runtime.trt.build import builder
from finedge.runtime.trt.build.command import build
from finedge.runtime.trt.build.graph import prepare
from finedge.runtime.trt.build.options import FILES, BuildOptions
from finedge.runtime.trt.build.store import EngineStore

RTX = {"target": "sm86", "backend": "tensorrt-rtx"}


def test_each_segment_gets_an_engine_of_its_own(rtx, segmented_bundle):
    result = build(segmented_bundle.path, precision="fp16,int8", **RTX)
    for name, shown in result["precisions"].items():
        files = [segment_file(FILES[name], k) for k in range(2)]
        assert [part["file"] for part in shown["segments"]] == files
        assert all(part["bytes"] > 0 for part in shown["segments"])
        assert shown["segments"][0]["problems"] == []
    assert len(list(EngineStore.of(segmented_bundle))) == 6


def test_the_engine_of_a_segment_is_found_again(rtx, segmented_bundle, monkeypatch):
    options = BuildOptions("fp32", targets=("sm86",), segment=1)
    made = builder.build(segmented_bundle, options, library=rtx)
    monkeypatch.setattr(builder, "compile_engine", None)  # a second build would fail
    found = builder.engine_for(segmented_bundle, options, library=rtx)
    assert found.path == made.path
    assert found.record["file"] == "model.fp32.seg1.onnx"


def test_a_dry_run_lists_the_engines_of_the_segments(rtx, segmented_bundle):
    shown = build(segmented_bundle.path, precision="int8", dry_run=True, **RTX)
    parts = shown["precisions"]["int8"]["segments"]
    assert [(part["file"], part["unsupported"]) for part in parts] == [
        ("model.int8.seg0.onnx", []),
        ("model.int8.seg1.onnx", []),
    ]


def test_an_engine_that_shows_feature_maps_has_no_segments(rtx, segmented_bundle):
    shown = build(segmented_bundle.path, precision="fp32", debug_taps=True, dry_run=True, **RTX)
    assert "segments" not in shown["precisions"]["fp32"]


def test_the_engine_of_the_whole_model_is_shown_if_a_segment_is_missing(rtx, segmented_bundle):
    files = (name for name in segmented_bundle.files if name != "model.fp32.seg1.onnx")
    lacking = Bundle.create(
        segmented_bundle.path.parent / "lacking.finedge",
        segmented_bundle.spec,
        files={name: segmented_bundle.path / name for name in files},
        provenance=segmented_bundle.provenance,
    )
    with pytest.raises(FinedgeError, match=r"holds no model\.fp32\.seg1\.onnx") as caught:
        build(lacking.path, precision="fp32", **RTX)
    shown = caught.value.result["precisions"]["fp32"]
    assert shown["bytes"] > 0
    assert "seg1" in shown["failed"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-fp32"])
def test_what_one_segment_writes_is_what_the_next_one_reads(segmented_bundle, precision):
    first, second = (
        prepare(
            read_model(segmented_bundle.file(options.file)),
            options,
        )
        for options in (BuildOptions(precision, "decomposed", segment=k) for k in range(2))
    )
    written = {value.name: _type(value) for value in first.graph.output}
    read = {value.name: _type(value) for value in second.graph.input}
    assert read == {name: written[name] for name in read}
    if precision.startswith("int8"):
        assert onnx.TensorProto.INT8 in read.values()


def _type(value):
    return value.type.tensor_type.elem_type
