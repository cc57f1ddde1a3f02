"""What a model file may not do: keep weights elsewhere, ask for impossible sizes, answer in another shape than the labels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.errors import BundleError
from finedge.graph.onnx_file import read_model, read_onnx
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ports import FLOATS, Port, check_answers, check_ports
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


def test_a_session_does_not_open_a_model_with_outside_data(tiny_bundle, monkeypatch):
    model = onnx.load(tiny_bundle.file(FLOAT_FILE))
    weight = model.graph.initializer[0]
    content = weight.raw_data
    elsewhere(weight)
    bundle = tiny_bundle.extend("test", {FLOAT_FILE: model.SerializeToString()}, {})
    for folder in (
        bundle.path,
        bundle.path.parent,
    ):  # beside the file; and where ONNX Runtime looks that is given bytes
        (folder / "weights.bin").write_bytes(content)
    monkeypatch.chdir(bundle.path.parent)
    for opened in (
        lambda b: OnnxRuntimeBackend().open(b, variant="fp32"),
        OnnxRuntimeBackend().open_with_taps,
    ):
        with pytest.raises(BundleError, match="no digest covers"):
            opened(bundle)


def model_of(*nodes, inputs=None, kind=TensorProto.FLOAT, shape=None, constants=()):
    frames = inputs or [
        helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", 32, 32, 3])
    ]
    answer = helper.make_tensor_value_info("logits", kind, shape)
    graph = helper.make_graph(list(nodes), "g", frames, [answer], list(constants))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def filled(*sizes):
    return model_of(
        helper.make_node("ConstantOfShape", ["s"], ["logits"]),
        constants=[numpy_helper.from_array(np.array(sizes, np.int64), "s")],
    )


CAST = helper.make_node("Cast", ["frames"], ["f"], to=1)
TWO = [
    helper.make_tensor_value_info(n, TensorProto.UINT8, ["B", 32, 32, 3])
    for n in ("frames", "others")
]
RENAMED = [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["B", 32, 32, 3])]
SMALLER = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", 16, 16, 3])]
FLAT = helper.make_node("ReduceMean", ["f"], ["logits"], keepdims=0)
ODD = {
    "a scalar": model_of(CAST, FLAT),
    "rank 4": model_of(helper.make_node("Cast", ["frames"], ["logits"], to=1)),
    "five rows": filled(5, 6),
    "no rows": filled(0, 6),
    "other classes": filled(1, 7),
    "no classes": filled(1, 0),
    "40 GB": filled(10**10),
    "40 GB inside": model_of(
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceMean", ["big"], ["logits"], keepdims=0),
        constants=[numpy_helper.from_array(np.array([10**5, 10**5], np.int64), "s")],
    ),
    "two inputs": model_of(CAST, FLAT, inputs=TWO),
    "another name": model_of(
        helper.make_node("Cast", ["pictures"], ["f"], to=1), FLAT, inputs=RENAMED
    ),
    "another size": model_of(CAST, FLAT, inputs=SMALLER),
    "strings": model_of(
        helper.make_node(
            "Constant",
            [],
            ["logits"],
            value=helper.make_tensor("v", TensorProto.STRING, [1, 6], [b"a"] * 6),
        ),
        kind=TensorProto.STRING,
        shape=[1, 6],
    ),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_model_of_another_shape_is_a_bundle_error(tiny_bundle, content):
    bundle = tiny_bundle.extend("test", {FLOAT_FILE: content}, {})
    with pytest.raises(BundleError):
        OnnxRuntimeBackend().open(bundle, variant="fp32")(np.zeros((1, 32, 32, 3), np.uint8))


FRAMES = Port("frames", "uint8", (None, 32, 32, 3))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([], [Port("logits", "float32", (None, 6))]),
        ([Port("frames", "float32", (None, 32, 32, 3))], [Port("logits", "float32", (None, 6))]),
        ([Port("frames", "uint8", (None, 3, 32, 32))], [Port("logits", "float32", (None, 6))]),
        ([FRAMES], [Port("scores", "float32", (None, 6))]),
        ([FRAMES], [Port("logits", "int64", (None, 6))]),
        ([FRAMES], [Port("logits", "float32", (None, 7))]),
        ([FRAMES], [Port("logits", "float32", (6,))]),
        ([Port("frames", "uint8", (4, 32, 32, 3))], [Port("logits", "float32", (5, 6))]),
    ],
)
def test_ports_other_than_the_spec_are_refused(tiny_bundle: Bundle, inputs, outputs):
    with pytest.raises(BundleError, match=FLOAT_FILE):
        check_ports(inputs, outputs, tiny_bundle, file=FLOAT_FILE)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [None, (None, 6), (None, None), (4, 6)])
def test_what_is_open_until_the_run_fits(tiny_bundle, dtype, shape):
    check_ports([FRAMES], [Port("logits", dtype, shape)], tiny_bundle, file=FLOAT_FILE)


@pytest.mark.parametrize(
    "found",
    [{}, {"logits": np.zeros(6)}, {"logits": np.zeros((2, 6))}, {"logits": np.zeros((1, 5))}],
)
def test_answers_of_another_shape_are_refused(tiny_bundle, found):
    with pytest.raises(BundleError, match="answered 1 frame"):
        check_answers(found, tiny_bundle.spec, rows=1, file=FLOAT_FILE)
