import importlib.util
from collections import Counter
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from finedge.calib.quantizers.report import ATTENTION_STAYS, DYNAMIC_WEIGHT
from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from finedge.calib.ranges.calibration_table import CalibrationTable, Range
from finedge.calib.ranges.collectors import COLLECTORS
from finedge.calib.ranges.observe import collect_ranges
from finedge.errors import FinedgeError
from finedge.graph.folding import fold
from finedge.graph.inlining import inline
from finedge.graph.tags import tags
from finedge.ops import CROSS_LAYER_ATTENTION
from tests.calib.conftest import MIN_CORRELATION, SIDE, batches, correlation, logits, pictures


class Graph:
    """Look-ups in a placed model."""

    def __init__(self, model):
        self.nodes = list(model.graph.node)
        self.producer = {name: n for n in self.nodes for name in n.output}
        self.constant = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def made_by(self, name):
        return self.producer[name].op_type if name in self.producer else None

    def computed_by(self, name):
        while self.made_by(name) == "Reshape":
            name = self.producer[name].input[0]
        return self.made_by(name)

    def of(self, *types):
        return [n for n in self.nodes if n.op_type in types]


@pytest.fixture(scope="module")
def placed(tiny):
    return quantize_for_tensorrt(tiny.model, tiny.table)


@pytest.fixture(scope="module")
def graph(placed):
    return Graph(placed[0])


def test_it_passes_the_full_check(placed):
    onnx.checker.check_model(placed[0], full_check=True)


def test_every_layer_takes_an_int8_activation(graph):
    for node in graph.of("Conv", "Gemm"):
        dequantize = graph.producer[node.input[0]]
        assert dequantize.op_type == "DequantizeLinear"
        assert graph.made_by(dequantize.input[0]) == "QuantizeLinear"


def test_every_weight_is_stored_in_int8_with_a_scale_an_output_channel(graph):
    for node in graph.of("Conv", "Gemm"):
        dequantize = graph.producer[node.input[1]]
        weight, scale, zero = (graph.constant[name] for name in dequantize.input)
        assert {a.name: a.i for a in dequantize.attribute}["axis"] == 0
        assert weight.dtype == np.int8
        assert scale.dtype == np.float32
        assert scale.shape == zero.shape == (len(weight),)
        assert not zero.any()


def test_depthwise_layers_are_quantized_too(graph):
    assert any({a.name: a.i for a in n.attribute}.get("group", 1) > 1 for n in graph.of("Conv"))


def test_activations_are_signed_symmetric_and_per_tensor(graph):
    for node in graph.of("QuantizeLinear"):
        scale, zero = graph.constant[node.input[1]], graph.constant[node.input[2]]
        assert (scale.shape, scale.dtype, zero.dtype, zero.item()) == ((), np.float32, np.int8, 0)


def test_biases_stay_float(graph):
    assert all(graph.constant[n.input[2]].dtype == np.float32 for n in graph.of("Conv", "Gemm"))
    assert not any(a.dtype == np.int32 for a in graph.constant.values())


def test_a_tensor_has_one_pair_shared_by_its_consumers(graph):
    assert max(Counter(n.input[0] for n in graph.of("QuantizeLinear")).values()) == 1
    readers = Counter(
        name for n in graph.nodes for name in n.input if graph.made_by(name) == "DequantizeLinear"
    )
    assert max(readers.values()) > 1


def test_the_skip_of_every_residual_add_is_int8_and_the_convolution_is_not(graph):
    adds = graph.of("Add")
    assert len(adds) == 3
    assert all(
        sorted(graph.made_by(name) for name in n.input) == ["Conv", "DequantizeLinear"]
        for n in adds
    )


def test_of_two_convolutions_the_shorter_branch_is_the_skip(tiny, graph):
    shortcut = next(
        n
        for n in tiny.model.graph.node
        if n.op_type == "Conv" and n.input[1] == "model.shortcut.0.weight"
    )
    assert graph.made_by(f"{shortcut.output[0]}/dequantized") == "DequantizeLinear"


def test_the_skip_of_a_gated_add_is_int8_and_what_the_gate_looks_at_is_not(gated):
    graph = Graph(quantize_for_tensorrt(gated.model, gated.table)[0])
    gates = graph.of("Mul")
    for node in gates:
        assert sorted(map(graph.computed_by, node.input)) in (
            ["Conv", "Sigmoid"],
            ["Mul", "Sigmoid"],
        )
    residual = [n for n in graph.of("Add") if "Mul" in map(graph.made_by, n.input)]
    assert len(residual) == 8
    assert all(
        sorted(graph.made_by(name) for name in n.input) == ["DequantizeLinear", "Mul"]
        for n in residual
    )
    scores = [n for n in graph.of("Add") if n not in residual]
    assert all([graph.computed_by(name) for name in n.input] == ["Conv", "Conv"] for n in scores)
    looked_at = [
        n
        for n in graph.of("GlobalAveragePool", "ReduceMean", "ReduceMax")
        if graph.made_by(n.input[0]) != "DequantizeLinear"
    ]
    assert {graph.made_by(n.input[0]) for n in looked_at} <= {"Conv", "Mul"}
    assert (
        len(graph.of("GlobalAveragePool"))
        - len([n for n in looked_at if n.op_type == "GlobalAveragePool"])
        == 1
    )


def test_every_convolution_of_a_gated_network_is_int8(gated):
    _, placement = quantize_for_tensorrt(gated.model, gated.table)
    assert sorted(placement.int8) == sorted(
        n.name for n in gated.model.graph.node if n.op_type in ("Conv", "Gemm")
    )


def test_pooling_takes_int8_with_one_range_on_both_sides(graph):
    pools = graph.of("MaxPool", "GlobalAveragePool", "ReduceMean")
    assert len(pools) == 2
    assert all(graph.made_by(n.input[0]) == "DequantizeLinear" for n in pools)
    pool = graph.of("MaxPool")[0]
    before = graph.producer[graph.producer[pool.input[0]].input[0]]
    after = next(n for n in graph.of("QuantizeLinear") if n.input[0] == pool.output[0])
    assert graph.constant[before.input[1]] == graph.constant[after.input[1]]


def test_attention_is_untouched(tiny, placed, graph):
    (call,) = [
        n
        for n in fold(placed[0], CROSS_LAYER_ATTENTION).graph.node
        if n.op_type == CROSS_LAYER_ATTENTION.name
    ]
    assert {graph.made_by(name) for name in call.input} == {"Conv"}
    assert call == next(n for n in tiny.model.graph.node if n.op_type == CROSS_LAYER_ATTENTION.name)
    before, after = ([n for n in m.graph.node if tags(n)] for m in (inline(tiny.model), placed[0]))
    assert [(n.name, n.op_type, n.input, n.output, tags(n)) for n in after] == [
        (n.name, n.op_type, n.input, n.output, tags(n)) for n in before
    ]
    assert placed[1].stays_float == {call.name: ATTENTION_STAYS}


def test_the_normalised_frame_is_quantized_like_any_input(graph):
    first = graph.of("Conv")[0]
    assert (
        graph.made_by(graph.producer[graph.producer[first.input[0]].input[0]].input[0])
        == "BatchNormalization"
    )


def test_activations_stay_between_a_layer_and_its_quantization(tiny, graph):
    kept = Counter(n.op_type for n in graph.of("Relu", "Clip"))
    assert kept == Counter(
        n.op_type for n in tiny.model.graph.node if n.op_type in ("Relu", "Clip")
    )
    assert all(graph.made_by(n.input[0]) in ("Conv", "Add") for n in graph.of("Relu", "Clip"))


def test_the_record_names_every_layer(tiny, placed):
    assert sorted(placed[1].int8) == sorted(
        n.name for n in tiny.model.graph.node if n.op_type in ("Conv", "Gemm")
    )


def test_no_float_copy_of_a_weight_is_left(tiny, placed):
    floats = [t for t in placed[0].graph.initializer if t.data_type == TensorProto.FLOAT]
    assert max(np.prod(t.dims) for t in floats) <= 32, "scales, biases, mean and std"


@pytest.mark.parametrize("method", COLLECTORS)
def test_it_agrees_with_the_float_model(tiny, method):
    table = collect_ranges(tiny.model, batches(pictures(64, seed=2)[0]), method=method)
    expected, found = (
        logits(tiny.model, tiny.frames),
        logits(quantize_for_tensorrt(tiny.model, table)[0], tiny.frames),
    )
    assert (expected.argmax(1) == tiny.labels).mean() > 0.8, (
        "the float model did not learn: agreement would say nothing"
    )
    assert (expected.argmax(1) == found.argmax(1)).mean() >= 0.95


def test_gates_survive_eight_bits(gated):
    expected, found = (
        logits(gated.model, gated.frames),
        logits(quantize_for_tensorrt(gated.model, gated.table)[0], gated.frames),
    )
    assert correlation(expected, found) > MIN_CORRELATION


GEMM = """<ir_version: 10, opset_import: ["": 20]>
g (float[b, 4] x, float[4, 3] w) => (float[b, 3] y)
<float[4, 3] W = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[3] B = {0, 0, 0}>
{ a = Relu(x)  y = Gemm(a, WEIGHT, B) }"""


def test_a_gemm_that_is_not_transposed_is_turned():
    model = onnx.parser.parse_model(GEMM.replace("WEIGHT", "W"))
    model, _ = quantize_for_tensorrt(model, CalibrationTable("max", {"a": Range(0, 1)}))
    graph = Graph(model)
    (gemm,) = graph.of("Gemm")
    assert {a.name: a.i for a in gemm.attribute}["transB"] == 1
    assert graph.constant["W/int8"].shape == (3, 4)
    assert graph.constant["W/scale"] * 127 == pytest.approx([10, 11, 12])


def test_a_layer_whose_weight_is_computed_stays_float():
    model, placement = quantize_for_tensorrt(
        onnx.parser.parse_model(GEMM.replace("WEIGHT", "w")),
        CalibrationTable("max", {"a": Range(0, 1)}),
    )
    assert list(placement.stays_float.values()) == [DYNAMIC_WEIGHT]
    assert not Graph(model).of("QuantizeLinear")


def test_a_tensor_that_was_not_calibrated_is_named(tiny):
    with pytest.raises(FinedgeError, match="was not calibrated"):
        quantize_for_tensorrt(tiny.model, CalibrationTable("max", {}))


needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed: pip install finedge[rtx]",
)


@needs_rtx
def test_nvidias_parser_takes_it(placed):
    import tensorrt_rtx as trt

    with parsed(placed[0]) as (_, network):
        types = Counter(network.get_layer(i).type for i in range(network.num_layers))
    assert types[trt.LayerType.QUANTIZE] == len(Graph(placed[0]).of("QuantizeLinear"))


@needs_rtx
def test_nvidias_builder_makes_an_engine_of_a_gated_network(gated):
    with parsed(quantize_for_tensorrt(gated.model, gated.table)[0]) as (builder, network):
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        profile.set_shape("frames", *[(batch, SIDE, SIDE, 3) for batch in (1, 1, 8)])
        config.add_optimization_profile(profile)
        assert builder.build_serialized_network(network, config) is not None


@contextmanager
def parsed(model):
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)  # all four stay referenced: the parser keeps none of them alive
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString()), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]
    yield builder, network
