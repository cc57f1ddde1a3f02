"""What TensorRT gets of every model, and what NVIDIA's builder makes of it.

The builder is TensorRT for RTX, which needs no GPU to build.
"""

from __future__ import annotations

import onnx
import pytest

from finedge.bundle import PORTABLE_FILE
from finedge.graph.onnx_file import read_model
from finedge.ops import DOMAIN
from finedge.runtime.trt.build.builder import build
from finedge.runtime.trt.build.expect import check_layers, inner_softmaxes
from finedge.runtime.trt.build.graph import prepare
from finedge.runtime.trt.build.layers import LayerReport
from finedge.runtime.trt.build.options import FILES, BuildOptions
from finedge.runtime.trt.library import load_library, why_not
from finedge.train import models

BACKBONES = ("efficientnet_lite0", "resnet50")
SMALL = ("cnl", "efficientnet_lite0")
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("sm86", "sm89", "sm120")
MODELS = [(name, backbone) for name in models.names() for backbone in BACKBONES]


def case(*choice, slow):
    return pytest.param(*choice, marks=[pytest.mark.slow] if slow else [], id="-".join(choice))


# The bundles are those of test_every_model.py, which makes the Lite0 ones by default too.
every_model = pytest.mark.parametrize(
    ("name", "backbone"), [case(*m, slow=m[1] == "resnet50") for m in MODELS]
)
every_engine = pytest.mark.parametrize(
    ("name", "backbone", "precision"),
    [case(*m, p, slow=m != SMALL) for m in MODELS for p in PRECISIONS],
)


@pytest.fixture(scope="module")
def rtx():
    if why_not("tensorrt-rtx"):
        pytest.skip(why_not("tensorrt-rtx"))
    return load_library("tensorrt-rtx")


@every_engine
def test_the_engine_computes_in_what_was_asked_for(untrained, rtx, name, backbone, precision):
    bundle = untrained.bundle(name, backbone)
    options = BuildOptions(precision=precision, attention="decomposed", targets=TARGETS)
    built = build(bundle, options, library=rtx)
    built.path.unlink()  # up to 100 MB, and nothing here can run it
    report = LayerReport.from_json(built.record)
    placed = bundle.provenance["calibrate"]["placements"][PORTABLE_FILE]["int8"]
    softmaxes = inner_softmaxes(prepare(read_model(bundle.file(options.file)), options))
    assert check_layers(report, int8_layers=placed, precision=precision, softmaxes=softmaxes) == ()
    assert report.of("convolution")
    assert {layer.precision for layer in report.of("convolution")} == {precision}
    if (name, backbone) == SMALL:
        assert all(
            s.startswith("node_cross_layer_attention") and "/Softmax." in s for s in softmaxes
        ), "inlined nodes have names that tell what they were"
        assert len(report.of("attention")) == (0 if precision == "fp32" else len(softmaxes)), (
            report.describe()
        )


@every_model
def test_no_name_inside_a_function_is_a_tensor_of_the_graph(untrained, name, backbone):
    # TensorRT's importer binds formals by name, one after another: such a name would get another
    # tensor (test_miscompiles.py).
    bundle = untrained.bundle(name, backbone)
    for file in (f for f in bundle.files if f.endswith(".onnx")):
        model = onnx.load(bundle.file(file))
        outer = {t for n in model.graph.node for t in (*n.input, *n.output)} | {
            t.name for t in model.graph.initializer
        }
        inner = {
            t
            for f in model.functions
            for t in (*f.input, *f.output, *(t for n in f.node for t in (*n.input, *n.output)))
        }
        assert not (outer & inner) - {""}, file


@every_model
@pytest.mark.parametrize("precision", FILES)
def test_tensorrt_is_given_no_function_and_no_call(untrained, name, backbone, precision):
    options = BuildOptions(precision=precision, attention="decomposed")
    model = prepare(read_model(untrained.bundle(name, backbone).file(options.file)), options)
    assert not model.functions
    assert not [n for n in model.graph.node if n.domain == DOMAIN]
    names = [n.name for n in model.graph.node]
    assert len(set(names)) == len(names), "the layer report tells nodes apart by their names"


@every_model
def test_the_portable_file_has_no_form_that_tensorrt_runs_in_float(untrained, name, backbone):
    graph = onnx.load(untrained.bundle(name, backbone).file(PORTABLE_FILE)).graph
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert not constants[node.input[1]].dims, f"{node.name}: an activation scale a channel"
        if node.op_type == "DequantizeLinear":
            weight = constants.get(node.input[0])
            scale = list(constants[node.input[1]].dims)
            axis = [a.i for a in node.attribute if a.name == "axis"]
            assert (scale, axis) == (([weight.dims[0]], [0]) if weight else ([], [])), node.name
            assert constants[node.input[2]].data_type == onnx.TensorProto.INT8
            assert not any(constants[node.input[2]].raw_data), f"{node.name}: a zero point"
