"""The layer report of ten engines that NVIDIA publishes with its trt-engine-explorer.

TensorRT 8.x wrote them on an A100 and an RTX 3090, in fp32, fp16 and INT8. They are not part of the
project, so the tests are skipped where they are missing.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from finedge.runtime.trt.build.expect import check_layers
from finedge.runtime.trt.build.layers import LayerReport
from finedge.runtime.trt.build.read_layers import from_inspector

TAIL = "onnx.engine.graph.json"
EXPLORER = "tools_experimental_trt-engine-explorer_tests_inputs"
# Each role with the number of its layers and the precision of all of them.
ENGINES = {
    f"A100_fp32_resnet.{TAIL}": {"convolution": (21, "fp32")},
    f"A100_fp16_resnet.{TAIL}": {"convolution": (21, "fp16")},
    f"A100_qat_resnet-qat.{TAIL}": {"convolution": (21, "int8")},
    f"A100_qat-residual_resnet-qat-residual.{TAIL}": {"convolution": (21, "int8")},
    f"A100_qat-residual-qgap_resnet-qat-residual-qgap.{TAIL}": {"convolution": (21, "int8")},
    f"RTX-3090_fp32_resnet.{TAIL}": {"convolution": (54, "fp32"), "softmax": (1, "fp32")},
    f"RTX-3090_fp16_resnet.{TAIL}": {"convolution": (54, "fp16"), "softmax": (1, "fp32")},
    f"RTX-3090_qat_resnet-qat.{TAIL}": {"convolution": (54, "int8"), "softmax": (1, "fp32")},
    f"{EXPLORER}_mobilenet.qat.{TAIL}": {"convolution": (53, "int8")},
    f"{EXPLORER}_mobilenet_v2_residuals.qat.{TAIL}": {"convolution": (53, "int8")},
}
STEM = f"A100_qat-residual_resnet-qat-residual.{TAIL}"
# What NVIDIA calls the layer in `ParameterType`; NoOp has none.
NVIDIA_ROLES = {
    "Convolution": "convolution",
    "ConvActPool": "convolution",
    "SoftMax": "softmax",
    "Reformat": "reformat",
    "Pooling": "other",
    "Shuffle": "other",
    "Slice": "other",
    None: "other",
}


@pytest.fixture(scope="module")
def text(shared_data):
    """Return a function that gives an engine's JSON."""
    folder = shared_data / "engine_json"
    if not folder.is_dir():
        pytest.skip(f"NVIDIA's engine descriptions are not here: {folder.name} is missing")
    return lambda name: (folder / name).read_text()


def test_no_published_engine_is_left_out(shared_data, text):
    assert {path.name for path in (shared_data / "engine_json").glob("*.json")} == set(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_precisions_and_counts_are_those_of_the_engine(name, text):
    report = from_inspector(text(name))
    expected = {role: {dtype: count} for role, (count, dtype) in ENGINES[name].items()}
    assert report.summary()["precisions"] == expected
    assert report.summary()["unknown_kinds"] == {}
    tensors = [t for layer in report.layers for t in (*layer.inputs, *layer.outputs)]
    assert "unknown" not in {tensor.dtype for tensor in tensors}
    assert {t.dtype for layer in report.of("convolution") for t in layer.constants} <= {
        "fp32",
        "fp16",
        "int8",
    }


@pytest.mark.parametrize("name", ENGINES)
def test_every_role_is_what_nvidia_calls_the_layer(name, text):
    records = json.loads(text(name))["Layers"]
    roles = [layer.role for layer in from_inspector(text(name)).layers]
    assert roles == [NVIDIA_ROLES[record.get("ParameterType")] for record in records]


@pytest.mark.parametrize("name", ENGINES)
def test_a_report_of_a_published_engine_survives_json(name, text):
    report = from_inspector(text(name))
    assert LayerReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def products(report):
    """Return the convolution and Gemm nodes that the engine's layers name."""
    names = [name for layer in report.layers for name in layer.onnx]
    return [name for name in names if name.startswith(("Conv_", "Gemm_"))]


@pytest.mark.parametrize("name", [name for name in ENGINES if "qat" in name and "RTX" not in name])
def test_an_int8_engine_has_no_problem_and_its_stem_is_found(name, text):
    report = from_inspector(text(name))
    nodes = products(report)
    assert len(nodes) == ENGINES[name]["convolution"][0]
    assert check_layers(report, int8_layers=nodes, precision="int8") == ()


def test_a_half_engine_that_should_be_int8_has_a_problem_per_node(text):
    report = from_inspector(text(f"A100_fp16_resnet.{TAIL}"))
    problems = check_layers(report, int8_layers=products(report), precision="int8")
    assert len(problems) == 21
    assert problems[0] == (
        "Conv_0 is INT8 in the calibration record, and the engine reads fp16 (Conv_0 + Relu_1)"
    )


def with_stem(report, **changes):
    """Return the report with the first convolution changed."""
    stem = report.of("convolution")[0]
    layers = [replace(layer, **changes) if layer is stem else layer for layer in report.layers]
    return replace(report, layers=tuple(layers))


def test_a_stem_of_an_unknown_type_counts_by_what_it_reads(text):
    report = from_inspector(text(STEM))
    stem = report.of("convolution")[0]
    assert (stem.kind, stem.onnx[2]) == ("ConvActPool", "Conv_9")
    future = with_stem(report, kind="FutureKernel")
    assert check_layers(future, int8_layers=["Conv_9"], precision="int8") == ()
    in_half = with_stem(
        report, kind="FutureKernel", inputs=(replace(stem.inputs[0], dtype="fp16"),)
    )
    (problem,) = check_layers(in_half, int8_layers=["Conv_9"], precision="int8")
    assert problem.endswith(
        "the engine reads fp16 "
        "(conv1.weight + QuantizeLinear_7 + Conv_9 + MaxPool_12, "
        "type 'FutureKernel', which is unknown)"
    )


def test_a_stem_that_only_a_pooling_names_is_reported_with_it(text):
    pooled = with_stem(from_inspector(text(STEM)), kind="CaskPooling")
    (problem,) = check_layers(pooled, int8_layers=["Conv_9"], precision="int8")
    assert problem.endswith(
        "no convolution or matrix product of the engine names it, only CaskPooling in int8 "
        "(conv1.weight + QuantizeLinear_7 + Conv_9 + MaxPool_12)"
    )


def test_an_engine_that_names_no_nodes_gives_one_sentence(text):
    report = from_inspector(text(STEM))
    nameless = replace(report, layers=tuple(replace(layer, onnx=()) for layer in report.layers))
    (problem,) = check_layers(nameless, int8_layers=products(report), precision="int8")
    assert problem.startswith("21 layers are INT8 in the calibration record, and no layer")
    assert check_layers(nameless, int8_layers=(), precision="int8") == ()
