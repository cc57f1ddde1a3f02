"""Cross-layer attention in the INT8 file for ONNX Runtime."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.report import ATTENTION_STAYS
from finedge.calib.ranges.observe import collect_ranges
from finedge.export.cost import attention_costs
from finedge.export.passes import absorb
from finedge.graph.attention import attention_nodes
from finedge.graph.edit import copied
from finedge.graph.inlining import inline
from finedge.graph.tags import tags
from tests.calib.conftest import logits

# The scores are sums of the same 8-bit numbers; only the order of float additions differs.
SAME = 1e-4
MODES = ("float", "scores", "int8")


@pytest.fixture(scope="module")
def by_mode(tiny):
    return {m: quantize_for_onnxruntime(tiny.model, tiny.table, attention=m)[0] for m in MODES}


def _run(model, tiny, path):
    logits(model, tiny.frames[:1], optimized=path)
    return Counter(n.op_type for n in onnx.load(path).graph.node)


@pytest.mark.parametrize(("mode", "integer"), [("scores", 1), ("int8", 2)])
def test_onnx_runtime_multiplies_integers(tiny, by_mode, mode, integer, tmp_path):
    onnx.checker.check_model(by_mode[mode], full_check=True)
    types = _run(by_mode[mode], tiny, tmp_path / "o.onnx")
    assert types["MatMulIntegerToFloat"] == integer
    assert types["MatMul"] + types["FusedMatMul"] == 2 - integer
    assert types["QLinearSoftmax"] == types["QLinearMatMul"] == 0


def test_integer_scores_give_the_answers_of_float_attention(tiny, by_mode):
    expected, scores = (logits(by_mode[m], tiny.frames) for m in ("float", "scores"))
    steps = np.abs(scores - expected).max(axis=1) > SAME * np.abs(expected).max()
    assert steps.mean() < 0.1, "a rounded sum may fall on the other side of a quantization step"


def test_integer_weights_keep_the_answers(tiny, by_mode):
    expected, found = (logits(by_mode[m], tiny.frames) for m in ("float", "int8"))
    assert (expected.argmax(1) == found.argmax(1)).mean() >= 0.98
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("mode", ["scores", "int8"])
def test_no_cpu_saturates(by_mode, mode):
    graph = by_mode[mode].graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    makers = {n.output[0]: n for n in graph.node}
    products = [n for n in graph.node if n.op_type == "MatMul"]
    lefts, rights = ([makers[n.input[i]] for n in products] for i in (0, 1))
    left, right = (
        [constants[n.input[2]] for n in factors if n.op_type == "DequantizeLinear"]
        for factors in (lefts, rights)
    )
    assert [z.dtype for z in left] == [np.uint8] * {"scores": 1, "int8": 2}[mode]
    assert len(right) == 2
    signed = [zero for zero in right if zero.dtype == np.int8]
    assert signed == {"scores": [], "int8": [-64]}[mode], "zero is the lowest of 7 bits"


def test_the_largest_weight_of_a_query_is_127_steps(tiny, by_mode):
    model = copied(by_mode["int8"])
    (steps,) = (n.output[0] for n in model.graph.node if n.name.endswith("steps/bytes"))
    model.graph.output.append(onnx.helper.make_tensor_value_info(steps, onnx.TensorProto.INT8, []))
    model.graph.output[-1].type.tensor_type.ClearField("shape")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run([steps], {session.get_inputs()[0].name: tiny.frames[:2]})
    assert found.min() >= -64
    assert (found.max(axis=-1) == 63).all()


def test_attention_that_is_kept_in_float_keeps_its_nodes(tiny):
    (node,) = attention_nodes(inline(tiny.model))
    model, report = quantize_for_onnxruntime(
        tiny.model, tiny.table, keep_float={node.name}, attention="int8"
    )
    tagged = [n for n in model.graph.node if tags(n)]
    assert len(tagged) == len([n for n in inline(tiny.model).graph.node if tags(n)])
    assert list(report.stays_float.values()).count(ATTENTION_STAYS) == len(tagged)
    assert not report.attention


@pytest.mark.parametrize("mode", ["scores", "int8"])
def test_a_map_that_is_key_and_value_is_quantized_once(tiny, mode):
    """So it is where the layer before it stays in float."""
    graph = ir.from_proto(tiny.model)
    model = ir.to_proto(absorb(graph, frozenset(cost.node for cost in attention_costs(graph))))
    (node,) = attention_nodes(inline(model))
    assert node.key == node.value
    others = {n.name for n in inline(model).graph.node if not tags(n) and n.op_type != "Gemm"}
    table = collect_ranges(model, [tiny.frames[:4]])
    made, report = quantize_for_onnxruntime(model, table, keep_float=others, attention=mode)
    logits(made, tiny.frames[:1])
    assert report.attention == {node.name: mode}
