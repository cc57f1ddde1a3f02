import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.calib.ranges.collectors import COLLECTORS
from finedge.calib.ranges.observe import collect_ranges, range_sources
from finedge.errors import DataError, FinedgeError, UsageError
from finedge.graph.inlining import inline
from finedge.graph.tags import tags
from tests.calib.conftest import batches, pictures


def _divide_by(value):
    """frames -> Cast -> 'pixels' -> Div -> 'ratio' -> Relu -> 'out'."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "divisor"], ["ratio"]),
        helper.make_node("Relu", ["ratio"], ["out"]),
    ]
    divisor = numpy_helper.from_array(np.array(value, np.float32), "divisor")
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["b", 4, 4, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", 4, 4, 3])
    return helper.make_model(
        helper.make_graph(nodes, "g", [frames], [out], [divisor]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def test_the_ranges_are_those_of_the_values():
    frames = np.arange(10, 58, dtype=np.uint8).reshape(1, 4, 4, 3)
    table = collect_ranges(_divide_by(2), [frames, frames + 100])
    assert (table["pixels"].low, table["pixels"].high) == (10, 157)
    assert (table["out"].low, table["out"].high) == (5, 78.5)


@pytest.mark.parametrize("method", COLLECTORS)
def test_batch_size_does_not_matter(tiny, method):
    frames = pictures(16, seed=2)[0]
    small, large = (
        collect_ranges(tiny.model, batches(frames, size=size), method=method) for size in (2, 16)
    )
    for name in small.ranges:
        assert [small[name].low, small[name].high] == pytest.approx(
            [large[name].low, large[name].high], abs=2e-3 * large[name].amax + 1e-6
        )


def test_batches_are_taken_one_at_a_time_and_not_kept():
    taken = []

    def frames():
        for index in range(5):
            taken.append(index)
            yield np.full((1, 4, 4, 3), index, np.uint8)

    assert collect_ranges(_divide_by(1), frames())["pixels"].high == 4
    assert taken == [0, 1, 2, 3, 4]


def test_no_batches_are_refused():
    with pytest.raises(DataError, match="no calibration images"):
        collect_ranges(_divide_by(1), [])


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'percentile'"):
        collect_ranges(_divide_by(1), [], method="percentil")


@pytest.mark.parametrize(("divisor", "pixel"), [(0.0, 0), (0.0, 7)])
def test_nan_and_infinity_name_the_tensor(divisor, pixel):
    with pytest.raises(FinedgeError, match="'out' holds NaN or infinity"):
        collect_ranges(_divide_by(divisor), [np.full((1, 4, 4, 3), pixel, np.uint8)])


def test_what_feeds_only_an_activation_takes_the_range_behind_it(tiny):
    relu = next(n for n in tiny.model.graph.node if n.op_type == "Relu")
    assert tiny.table[relu.input[0]] == tiny.table[relu.output[0]]


def test_a_pooled_tensor_keeps_the_range_it_had(tiny):
    pool = next(n for n in tiny.model.graph.node if n.op_type == "MaxPool")
    assert tiny.table[pool.output[0]] == tiny.table[pool.input[0]]


def test_nothing_inside_attention_is_observed(tiny):
    graph = inline(tiny.model).graph
    inner = {name for node in graph.node if tags(node) for name in node.output}
    (answer,) = [name for call in tiny.model.graph.node if call.domain for name in call.output]
    assert inner & set(tiny.table.ranges) == {answer}


def test_the_model_is_left_as_it_was(tiny):
    before = tiny.model.SerializeToString(deterministic=True)
    collect_ranges(tiny.model, batches(tiny.frames[:4]))
    assert tiny.model.SerializeToString(deterministic=True) == before


def test_a_tensor_that_others_read_as_well_has_its_own_range():
    graph = onnx.parser.parse_graph(
        "g (float[1] x) => (float[1] y, float[1] z) { a = Neg(x) y = Relu(a) z = Neg(a) }"
    )
    assert range_sources(graph) == {}
