"""Layer reports from logs and from the engine inspector.

Logs were recorded from TensorRT for RTX 1.7.1 and shortened. Inspector answers were written by hand
from NVIDIA's documents (not run on hardware).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.errors import FinedgeError
from finedge.runtime.trt.build.compiler import BuildOrder, compile_engine
from finedge.runtime.trt.build.expect import check_layers, inner_softmaxes
from finedge.runtime.trt.build.layers import LayerReport
from finedge.runtime.trt.build.options import BuildOptions, build_target
from finedge.runtime.trt.build.read_layers import from_inspector, from_log
from finedge.runtime.trt.library import load_library, why_not

LOGS = Path(__file__).parent / "logs"
INSPECTOR = ("inspector-10-written-by-hand.json", "inspector-11-written-by-hand.json")


def recorded(name):
    return from_log(["first words", (LOGS / f"rtx-1.7.1-{name}.txt").read_text(), "last words"])


def inspected(name):
    return from_inspector((LOGS / name).read_text())


def test_every_line_of_a_log_becomes_a_layer():
    report = recorded("attention-fp16")
    assert (len(report.layers), report.source) == (12, "build log")
    theta = next(layer for layer in report.layers if "theta" in layer.onnx)
    assert (theta.name, theta.kind, theta.role, theta.precision) == (
        "theta_myl0_4",
        "correlation",
        "convolution",
        "fp16",
    )
    assert [(t.shape, t.dtype) for t in theta.inputs] == [((-1, 32, 14, 14), "fp16")]
    assert [(t.shape, t.dtype) for t in theta.constants] == [
        ((64, 32, 1, 1), "fp16"),
        ((1,), "fp32"),
        ((1,), "fp32"),
    ]
    assert [t.shape for t in theta.outputs] == [(-1, 64, 7, 7)]


def test_fused_attention_is_one_layer_of_both_products_and_the_softmax():
    report = recorded("attention-fp16")
    (fused,) = report.of("attention")
    assert fused.onnx == ("mix", "softmax", "scores", "scale")
    assert (report.summary()["fused_attention"], report.summary()["unfused_softmax"]) == (1, 0)


def test_int8_convolutions_and_float_islands_are_told_apart():
    report = recorded("cnl-int8-fp32")
    summary = report.summary()
    assert summary["int8_convolutions"] == 2
    assert summary["precisions"] == {
        "convolution": {"int8": 2},
        "matmul": {"fp32": 2, "int8": 1},
        "softmax": {"fp32": 1},
    }
    assert [(i["role"], i["precision"], i["onnx"]) for i in summary["float_islands"]] == [
        ("matmul", "fp32", ["n13__2"]),
        ("softmax", "fp32", ["n14__2"]),
        ("matmul", "fp32", ["n15__2"]),
    ]


def test_kernels_are_known_by_their_names():
    kernels = [(layer.role, layer.precision) for layer in recorded("kernels").layers]
    assert kernels == [
        ("matmul", "fp32"),  # a fully connected layer that is fused at run time
        (
            "softmax",
            "fp16",
        ),  # over four terms, written out; reads an INT8 convolution's float32 and casts inside
        ("softmax", "fp32"),
        ("other", "fp32"),  # pads the head size for the fused kernel, whose nodes it names too
        ("attention", "fp16"),
        ("plugin", "fp16"),
    ]


# The types of libnvinfer_lean 11.4, in its order, and those of TensorRT 8.x and of Myelin.
KERNEL_CLASSES = {
    "convolution": "CaskConvActPool CaskDeconvolution CaskDeconvolutionV2 CaskDepSepConvolution "
    "CaskFlattenConvolution CaskGemmConvolution CaskGemmDeconvolution CaskConvolution CaskJitConv "
    "ConvActPool FusedConvActConvolution CudaDepthwiseConvolution CublasConvolution correlation "
    "deconv conv_act_pool",
    "matmul": "CaskGemmMatrixMultiply CublasLtMatrixMultiply CudaFullyConnected gemm",
    "softmax": "RaggedSoftMax CaskSoftMaxV2 CudaSoftMax MyelinLogSoftmaxTopK",
    "attention": "fmha",
    "plugin": "PluginV2 PluginV3 PluginV2DynamicExt custom_layer",
    "reformat": "Reformat MyelinReformat",
    "other": "DeviceToShapeHost ShapeHostToDevice NoOp CaskLRN CaskPooling PointWiseV2 "
    "MyelinElementWise MyelinPointWise MyelinReduce MyelinScale MyelinShuffle MyelinTopK "
    "TiledPooling Slice Padding shape_call TrainStation1 signal wait maxpool avgpool",
    "unknown": "Myelin SafetyMyelin FutureKernel",
}
# A mixture of experts holds matrix products, and more.
UNKNOWN_NETWORK_LAYERS = {"MOE"}


def one_layer(kind, *, tactic="", dtype="Half"):
    """Return the report of an engine with one layer."""
    tensor = {"Name": "x", "Dimensions": [1], "Format": "", "Datatype": dtype}
    layer = {"Name": "it", "LayerType": kind, "Inputs": [tensor], "TacticName": tactic}
    return from_inspector(json.dumps({"Layers": [{**layer, "Metadata": "[ONNX Layer: a]"}]}))


@pytest.mark.parametrize(
    ("kind", "role"),
    [(kind, role) for role, kinds in KERNEL_CLASSES.items() for kind in kinds.split()],
)
def test_every_kernel_class_of_tensorrt_has_its_role(kind, role):
    assert one_layer(kind).layers[0].role == role


def test_every_layer_and_every_dtype_of_a_network_is_known(rtx):
    roles = {kind: one_layer(kind).layers[0].role for kind in rtx.trt.LayerType.__members__}
    assert {kind for kind, role in roles.items() if role == "unknown"} == UNKNOWN_NETWORK_LAYERS
    assert roles["DECONVOLUTION"] == "convolution"
    assert roles["MATRIX_MULTIPLY"] == roles["EINSUM"] == "matmul"
    dtypes = {n: one_layer("x", dtype=n).layers[0].precision for n in rtx.trt.DataType.__members__}
    assert [name for name, dtype in dtypes.items() if dtype == "unknown"] == []


@pytest.mark.parametrize(
    ("tactic", "role"),
    [
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32", "convolution"),
        ("ampere_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", "convolution"),
        ("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64_stage5", "matmul"),
        ("_gemm_mha_v2_0xe518f761dd1033261d1f8db084c76820", "attention"),
        ("", "unknown"),
    ],
)
def test_the_kernel_tells_the_role_of_an_unknown_type(tactic, role):
    assert one_layer("FutureKernel", tactic=tactic).layers[0].role == role


def test_a_layer_of_an_unknown_type_is_shown():
    report = one_layer("FutureKernel")
    assert report.summary()["unknown_kinds"] == {"FutureKernel": 1}
    assert "unknown type   'FutureKernel' in fp16: a" in report.describe()
    assert report.to_json()["layers"][0]["role"] == "unknown"


@pytest.mark.parametrize("file", INSPECTOR)
def test_the_inspector_of_both_majors_gives_the_same_layers(file):
    report = inspected(file)
    assert [(layer.role, layer.precision) for layer in report.layers] == [
        ("reformat", "uint8"),
        ("convolution", "int8"),
        ("convolution", "fp16"),
        ("attention", "fp16"),
        ("plugin", "fp16"),
        ("matmul", "int8"),
    ]
    assert report.layers[1].onnx == ("pixels/quantize", "stem", "relu")
    assert report.layers[3].onnx == ("mix", "softmax"), (
        "the call a node was inside of is no part of its name"
    )
    assert report.source == "inspector"


def test_a_type_hidden_by_dynamic_shapes_is_that_of_the_weights():
    last = inspected(INSPECTOR[0]).layers[-1]
    assert (last.inputs[0].dtype, last.precision) == ("unknown", "int8")


@pytest.mark.parametrize(
    "report",
    [recorded("attention-fp16"), recorded("cnl-int8-fp32"), inspected(INSPECTOR[0])],
    ids=["log", "int8 log", "inspector"],
)
def test_a_report_survives_json_and_describes_itself(report):
    assert LayerReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert f"layers         {len(report.layers)} ({report.source})" in report.describe()


@pytest.mark.parametrize(
    "messages", [[], ["Layers are many"], ["Layers:\nName: all, LayerType: Myelin\n"]]
)
def test_a_log_without_details_is_refused(messages):
    with pytest.raises(FinedgeError, match=r"build log holds no list|unknown form"):
        from_log(messages)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": ["conv", "relu"]}', '{"Layers": []}'])
def test_an_inspector_answer_without_details_is_refused(text):
    with pytest.raises(FinedgeError, match="inspector returned"):
        from_inspector(text)


def test_the_check_finds_a_layer_that_left_int8_and_one_that_is_gone():
    report = recorded("cnl-int8-fp32")
    placed = ("node_Conv_891", "node_Conv_992", "node_linear")
    assert check_layers(report, int8_layers=placed, precision="int8-fp32") == ()
    in_float = [
        replace(layer, inputs=(replace(layer.inputs[0], dtype="fp32"),))
        if layer.name.startswith("node_Conv_992")
        else layer
        for layer in report.layers
    ]
    (problem,) = check_layers(
        replace(report, layers=tuple(in_float)), int8_layers=placed, precision="int8-fp32"
    )
    assert problem == (
        "node_Conv_992 is INT8 in the calibration record, "
        "and the engine reads fp32 (node_Conv_992_myl0_104)"
    )
    (problem,) = check_layers(report, int8_layers=(*placed, "node_Conv_7"), precision="int8-fp32")
    assert problem.startswith("node_Conv_7 is INT8 in the calibration record, and no convolution")


def test_the_check_finds_products_and_softmaxes_in_fp32():
    report = recorded("cnl-int8-fp32")
    assert check_layers(report, int8_layers=(), precision="fp32") == ()
    problems = check_layers(report, int8_layers=(), precision="int8")
    assert problems == (
        "matmul n13__2 reads FP32",
        "softmax n14__2 reads and writes FP32",
        "matmul n15__2 reads FP32",
    )
    assert len(check_layers(report, int8_layers=(), precision="int8", softmaxes=())) == 2


def attention(d, *, kind):
    """Attention of 49 queries over 196 keys, one head of size `d`, between 1x1 convolutions.

    A softmax over the pooled result follows.
    """
    dtype = np.dtype(kind)
    tensor = helper.np_dtype_to_tensor_dtype(dtype)
    rng = np.random.default_rng(0)
    shapes = {"wq": (d, 8, 1, 1), "wk": (d, 8, 1, 1), "wv": (d, 8, 1, 1), "wz": (8, d, 1, 1)}
    stored = {name: rng.normal(0, 0.05, shape).astype(dtype) for name, shape in shapes.items()}
    stored |= {
        "flat": np.array([0, 1, d, -1]),
        "map": np.array([0, d, 7, 7]),
        "factor": np.array(d**-0.5, dtype),
        "axes": np.array([2, 3]),
    }
    steps = [
        ("Cast", ["frames"], "x", {"to": tensor}),
        ("Conv", ["x", "wq"], "q", {"strides": [2, 2]}),
        ("Conv", ["x", "wk"], "k", {}),
        ("Conv", ["x", "wv"], "v", {}),
        ("Reshape", ["q", "flat"], "columns", {}),
        ("Transpose", ["columns"], "rows", {"perm": [0, 1, 3, 2]}),
        ("Mul", ["rows", "factor"], "scaled", {}),
        ("Reshape", ["k", "flat"], "keys", {}),
        ("MatMul", ["scaled", "keys"], "logits", {}),
        ("Softmax", ["logits"], "weights", {"axis": -1}),
        ("Reshape", ["v", "flat"], "columns_v", {}),
        ("Transpose", ["columns_v"], "values", {"perm": [0, 1, 3, 2]}),
        ("MatMul", ["weights", "values"], "mixed", {}),
        ("Transpose", ["mixed"], "turned", {"perm": [0, 1, 3, 2]}),
        ("Reshape", ["turned", "map"], "y", {}),
        ("Conv", ["y", "wz"], "z", {}),
        ("ReduceMean", ["z", "axes"], "pooled", {"keepdims": 0}),
        ("Cast", ["pooled"], "wide", {"to": TensorProto.FLOAT}),
        ("Softmax", ["wide"], "p", {"axis": -1}),
    ]
    nodes = [
        helper.make_node(op, inputs, [output], name=f"node {output}", **attributes)
        for op, inputs, output, attributes in steps
    ]
    ends = [
        helper.make_tensor_value_info(*end)
        for end in (
            ("frames", TensorProto.FLOAT, ["b", 8, 14, 14]),
            ("p", TensorProto.FLOAT, ["b", 8]),
        )
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(v, k) for k, v in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def built():
    """Return a function that gives the report of a real build by TensorRT for RTX."""
    if why_not("tensorrt-rtx"):
        pytest.skip(why_not("tensorrt-rtx"))
    rtx = load_library("tensorrt-rtx")
    target = build_target(("sm86", "sm89", "sm120"), library=rtx)
    return lambda model: from_log(
        compile_engine(
            model, BuildOrder("a test", ("frames",), BuildOptions(), rtx, target, "test")
        ).messages
    )


@pytest.mark.parametrize(
    ("d", "kind", "fused"), [(64, "float16", True), (512, "float16", False), (64, "float32", False)]
)
def test_a_real_build_tells_whether_attention_was_fused(built, d, kind, fused):
    model = attention(d, kind=kind)
    report = built(model)
    assert {layer.onnx[0] for layer in report.of("convolution")} == {
        "node q",
        "node k",
        "node v",
        "node z",
    }
    assert (len(report.of("attention")), len(report.of("matmul"))) == ((1, 0) if fused else (0, 2))
    assert inner_softmaxes(model) == {"node weights"}, "the last softmax makes probabilities"
    problems = check_layers(
        report, int8_layers=(), precision="fp16", softmaxes=inner_softmaxes(model)
    )
    assert len(problems) == (3 if kind == "float32" else 0), problems
