import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.errors import BundleError
from finedge.graph.segments import cut


def chain(*, batch="batch"):
    """Return x -> Q/DQ -> product -> Relu with an output after each of the last two."""
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32) * 2, "w")
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.uint8(128), "zero")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["map"]),
        helper.make_node("Relu", ["map"], ["first"]),
        helper.make_node("QuantizeLinear", ["map", "scale", "zero"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["again"]),
        helper.make_node("Add", ["again", "first"], ["second"]),
        helper.make_node("Sum", ["second", "again"], ["last"]),
    ]
    names = ("first", "second", "last")
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 3]) for n in names],
        [weights, scale, zero],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, arrays):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    feeds = {i.name: arrays[i.name] for i in session.get_inputs()}
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_the_segments_compute_what_the_whole_computes():
    arrays = {"x": np.random.default_rng(0).normal(0, 3, (4, 3)).astype(np.float32)}
    whole = run(chain(), arrays)
    for part in cut(chain(), ["first", "second"]):
        onnx.checker.check_model(part, full_check=True)
        arrays |= run(part, arrays)
    for name, values in whole.items():
        np.testing.assert_array_equal(arrays[name], values)


def test_a_quantized_map_crosses_the_cut_as_integers():
    first, second, rest = cut(chain(), ["first", "second"])
    assert [output.name for output in first.graph.output] == ["first", "integers"]
    assert [i.name for i in second.graph.input] == ["integers", "first"]
    assert {i.name for i in rest.graph.input} == {"second", "integers"}
    for part in (second, rest):
        assert "DequantizeLinear" in {node.op_type for node in part.graph.node}
        assert "QuantizeLinear" not in {node.op_type for node in part.graph.node}


def test_a_segment_holds_only_the_weights_that_it_reads():
    first, rest = cut(chain(), ["first"])
    assert {t.name for t in first.graph.initializer} == {"w", "scale", "zero"}
    assert {t.name for t in rest.graph.initializer} == {"scale", "zero"}


@pytest.mark.parametrize(
    ("outputs", "text"),
    [(["third"], "no output third"), (["second", "first"], "no node lies between")],
)
def test_a_wrong_place_is_refused(outputs, text):
    with pytest.raises(BundleError, match=text):
        cut(chain(), outputs)


def test_a_cut_through_a_tensor_of_fixed_rows_is_refused():
    with pytest.raises(BundleError, match="first dimension is not the batch"):
        cut(chain(batch=4), ["first"])
