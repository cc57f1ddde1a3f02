"""What ONNX Runtime makes of a layer that was left in float."""

import onnx
import pytest

from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.report import RESTORED
from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from finedge.graph.patterns import layers
from tests.calib.conftest import logits

IN_FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm")


def layer_names(case):
    _, report = quantize_for_onnxruntime(case.model, case.table)
    return report.int8


@pytest.mark.parametrize("place", [0, 2, 4, -1])
def test_a_layer_in_float_is_not_quantized_again_when_the_file_loads(tiny, tmp_path, place):
    name = layer_names(tiny)[place]
    model, report = quantize_for_onnxruntime(tiny.model, tiny.table, keep_float={name})
    onnx.checker.check_model(model, full_check=True)
    assert report.stays_float[name] == RESTORED
    optimized = tmp_path / "optimized.onnx"
    logits(model, tiny.frames[:4], optimized=optimized)
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    _, everything = quantize_for_onnxruntime(tiny.model, tiny.table)
    fused = sum(kind.startswith("QLinearConv") or kind == "QGemm" for kind in kinds)
    assert fused == len(everything.int8) - 1
    assert sum(kind in IN_FLOAT for kind in kinds) == 1


@pytest.mark.parametrize("quantize", [quantize_for_onnxruntime, quantize_for_tensorrt])
def test_both_files_name_the_layer_and_store_its_float_weight(tiny, quantize):
    name = layer_names(tiny)[3]
    model, report = quantize(tiny.model, tiny.table, keep_float={name})
    assert name not in report.int8
    assert report.stays_float[name] == RESTORED
    layer = next(n for n in layers(model.graph) if n.name == name)
    weight = next(t for t in model.graph.initializer if t.name == layer.input[1])
    assert weight.data_type == onnx.TensorProto.FLOAT
