"""What a model file may not do: keep weights outside of itself, or ask for impossible sizes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.errors import BundleError
from finedge.graph.onnx_file import read_model, read_onnx
from tests.runtime.trt.build.conftest import attention_model


def elsewhere(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def in_an_initializer(model):
    elsewhere(model.graph.initializer[0])


def in_an_attribute(model):
    node = helper.make_node(
        "Constant", [], ["far"], value=numpy_helper.from_array(np.zeros(4, np.float32), "far")
    )
    elsewhere(node.attribute[0].t)
    model.graph.node.append(node)


def in_a_subgraph(model):
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("w", 1, [4])])
    branch.initializer.append(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    elsewhere(branch.initializer[0])
    model.graph.node.append(
        helper.make_node("If", ["frames"], ["far"], then_branch=branch, else_branch=branch)
    )


def in_a_function(model):
    node = model.functions[0].node.add(op_type="Constant", output=["far"])
    node.attribute.append(
        helper.make_attribute("value", numpy_helper.from_array(np.zeros(4, np.float32), "far"))
    )
    elsewhere(node.attribute[0].t)


def in_a_sparse_tensor(model):
    values, where = (
        numpy_helper.from_array(np.zeros(2, t), n) for t, n in ((np.float32, "v"), (np.int64, "i"))
    )
    elsewhere(values)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [4]))


PLACES = [in_an_initializer, in_an_attribute, in_a_subgraph, in_a_function, in_a_sparse_tensor]


@pytest.mark.parametrize("place", PLACES)
def test_data_outside_of_the_file_is_refused_wherever_it_hides(tmp_path, place):
    model = attention_model()
    place(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    for read in (read_onnx, read_model):
        with pytest.raises(BundleError, match="another file, which no digest covers"):
            read(path)


def model_of(*nodes, constants=()):
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", 32, 32, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [frames], [logits], list(constants))
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def constant_of_shape(result, *sizes):
    shape = numpy_helper.from_array(np.array(sizes, np.int64), "s")
    return helper.make_node("ConstantOfShape", ["s"], [result]), shape


def test_a_tensor_of_40_gb_is_refused_as_an_output_and_inside(tmp_path):
    output, shape = constant_of_shape("logits", 10**10)
    inner, square = constant_of_shape("big", 10**5, 10**5)
    mean = helper.make_node("ReduceMean", ["big"], ["logits"], keepdims=0)
    for content in (model_of(output, constants=[shape]), model_of(inner, mean, constants=[square])):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(BundleError, match="impossible size"):
            read_model(tmp_path / "m.onnx")
