from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from finedge.export.ops import ONNX_OPS
from finedge.ops import OPS
from tests.small_models import small_export

OP = OPS["ChannelAttention"]
# Sums of at most 49 products of unit normals; float16 keeps 11 bits.
FLOAT32_TOLERANCE, FLOAT16_TOLERANCE = 1e-5, 1e-2
CASES = [(1, (3, 3), (3, 3)), (1, (2, 2), (7, 5)), (4, (3, 2), (6, 5)), (8, (7, 7), (1, 1))]


def tensors(query, values):
    rng = np.random.default_rng(1)
    return [rng.normal(size=(2, 8, *grid)).astype(np.float32) for grid in (query, query, values)]


def run_body(inputs, *, groups, dtype=np.float32):
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    q, k, v, y = (
        onnx.helper.make_tensor_value_info(name, kind, ["b", None, None, None]) for name in "qkvy"
    )
    node = onnx.helper.make_node(
        OP.name, list("qkv"), ["y"], domain=OP.domain, groups=groups, scale=0.3
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(OP.domain, OP.version)]
    graph = onnx.helper.make_graph([node], "g", [q, k, v], [y])
    model = onnx.helper.make_model(
        graph,
        functions=[ir.to_proto(ONNX_OPS[OP.name].body())],
        opset_imports=opsets,
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(zip("qkv", (x.astype(dtype) for x in inputs), strict=True)))[0]


@pytest.mark.parametrize(("groups", "query", "values"), CASES)
def test_the_onnx_body_and_the_torch_op_equal_the_numpy_reference(groups, query, values):
    inputs = tensors(query, values)
    expected = OP.reference(*inputs, groups=groups, scale=0.3)
    assert run_body(inputs, groups=groups) == pytest.approx(expected, abs=FLOAT32_TOLERANCE)
    assert torch.ops.finedge.channel_attention(
        *map(torch.from_numpy, inputs), groups, 0.3
    ).numpy() == pytest.approx(expected, abs=FLOAT32_TOLERANCE)


def test_the_body_runs_in_float16():
    inputs = tensors((3, 2), (6, 5))
    found = run_body(inputs, groups=4, dtype=np.float16)
    assert found.dtype == np.float16
    assert found == pytest.approx(OP.reference(*inputs, groups=4, scale=0.3), abs=FLOAT16_TOLERANCE)


def test_it_is_one_node_with_a_function_and_the_plugin_attributes():
    content, _ = small_export(name="clca_cga", backbone="resnet18")
    proto = onnx.ModelProto.FromString(content)
    (node,) = [n for n in proto.graph.node if n.op_type == OP.name]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    # The last map of a 64 pixel image has 2 x 2 positions.
    assert attributes == {
        "groups": 16,
        "scale": pytest.approx(0.5),
        "plugin_namespace": b"finedge",
        "plugin_version": b"1",
    }
    assert len(set(node.input)) == 1, "channel group attention has one source"
    assert {f.name for f in proto.functions} == {"ChannelAttention", "CrossLayerAttention"}
