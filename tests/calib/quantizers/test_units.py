import onnx

from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.units import ATTENTION, find_units
from finedge.graph.inlining import inline
from finedge.graph.tags import NODE, tags


def units_of(case):
    _, report = quantize_for_onnxruntime(case.model, case.table)
    return find_units(case.model, report.int8), report


def producer(model, tensor):
    return next(n for n in inline(model).graph.node if tensor in n.output)


def test_every_int8_layer_is_a_unit_and_no_node_is_in_two(tiny):
    units, report = units_of(tiny)
    assert [unit.name for unit in units.all] == list(report.int8)
    nodes = [name for unit in units.all for name in unit.nodes]
    assert len(nodes) == len(set(nodes))


def test_an_activation_goes_with_its_layer_and_an_add_with_its_main_branch(tiny):
    graph = inline(tiny.model).graph
    units, _ = units_of(tiny)
    owners = {node: unit.name for unit in units.all for node in unit.nodes}
    order = {node.name: i for i, node in enumerate(graph.node)}
    for node in graph.node:
        if node.op_type in ("Relu", "Clip", "MaxPool"):
            assert owners[node.name] == owners[producer(tiny.model, node.input[0]).name]
        if node.op_type == "Add" and node.name in owners:
            sources = [producer(tiny.model, name).name for name in node.input]
            assert owners[node.name] == owners[max(sources, key=order.get)]


def test_operations_are_counted_by_hand(tiny):
    units, _ = units_of(tiny)
    stem, classifier = units.all[0], units.all[-1]
    assert stem.macs == 48 * 48 * 16 * 3 * 9
    assert (classifier.kind, classifier.macs) == ("Gemm", 32 * 4)
    assert [u.macs for u in units.all if u.kind == "depthwise Conv"] == [12 * 12 * 32 * 9]
    queries, keys = 12 * 12, 24 * 24
    attention = 2 * queries * keys * 16
    assert units.macs == sum(u.macs for u in units.all) + attention
    assert units.int8_share({u.name for u in units.all}) == 0


def test_attention_in_int8_is_one_unit(tiny):
    inlined = inline(tiny.model)
    call = next(tags(n)[NODE] for n in inlined.graph.node if NODE in tags(n))
    product = next(
        n.name for n in inlined.graph.node if n.op_type == "MatMul" and tags(n).get(NODE) == call
    )
    for name in (call, product):
        (unit,) = find_units(tiny.model, [name]).all
        assert (unit.name, unit.kind, unit.macs) == (call, ATTENTION, 2 * 144 * 576 * 16)
        assert product in unit.nodes


def test_the_model_is_not_changed(tiny):
    before = onnx.ModelProto.FromString(tiny.model.SerializeToString())
    units_of(tiny)
    assert tiny.model == before
