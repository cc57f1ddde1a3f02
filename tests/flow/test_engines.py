"""What NVIDIA's builder makes of every model.

The builder is TensorRT for RTX, which needs no GPU to build.
"""

from __future__ import annotations

import pytest

from finedge.bundle import PORTABLE_FILE
from finedge.graph.onnx_file import read_model
from finedge.runtime.trt.build.builder import build
from finedge.runtime.trt.build.expect import check_layers, inner_softmaxes
from finedge.runtime.trt.build.graph import prepare
from finedge.runtime.trt.build.layers import LayerReport
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.library import load_library, why_not
from finedge.train import models
from tests.flow.conftest import LARGE, LARGE_MODELS

SMALL = ("cnl", "efficientnet_lite0")
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("sm86", "sm89", "sm120")
MODELS = [(name, "efficientnet_lite0") for name in models.names()]
MODELS += [(name, LARGE) for name in LARGE_MODELS]


def case(*choice, slow):
    return pytest.param(*choice, marks=[pytest.mark.slow] if slow else [], id="-".join(choice))


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
