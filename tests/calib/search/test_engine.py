"""What NVIDIA's builder makes of a file with layers in float (TensorRT for RTX needs no GPU)."""

import pytest

from finedge.bundle import PORTABLE_FILE, Bundle
from finedge.graph.onnx_file import read_model
from finedge.runtime.trt.build.builder import build
from finedge.runtime.trt.build.expect import problems
from finedge.runtime.trt.build.graph import prepare
from finedge.runtime.trt.build.layers import LayerReport
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.library import load_library, why_not


@pytest.mark.slow
def test_an_engine_computes_the_restored_layers_in_float(searched):
    if why_not("tensorrt-rtx"):
        pytest.skip(why_not("tensorrt-rtx"))
    bundle = Bundle.load(searched.path)
    options = BuildOptions(precision="int8", attention="decomposed", targets=("sm86",))
    built = build(bundle, options, library=load_library("tensorrt-rtx"))
    report = LayerReport.from_json(built.record)
    model = prepare(read_model(bundle.file(options.file)), options)
    assert problems(report, bundle=bundle, model=model, precision="int8") == ()
    record = bundle.provenance["calibrate"]
    assert set(record["placements"][PORTABLE_FILE]["int8"])
    in_float = record["search"]["points"][record["search"]["pick"] - 1]["in_float"]
    products = [
        layer
        for layer in report.layers
        if layer.role in ("convolution", "matmul") and set(layer.onnx) & set(in_float)
    ]
    assert products
    assert all(layer.precision != "int8" for layer in products)
