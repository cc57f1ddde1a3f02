"""Which provider ran a node, read from profiles that real sessions on the CPU wrote."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.errors import SystemProblem
from finedge.runtime.ort.gpu.placement import (
    CPU,
    check_placement,
    profiled_nodes,
    read_profile,
)

GPU = "CUDAExecutionProvider"


def nodes_of(model, frames, folder):
    """Run a model on the CPU; return the nodes that its profile names."""
    settings = onnxruntime.SessionOptions()
    settings.enable_profiling = True
    settings.profile_file_prefix = str(folder / "run")
    session = onnxruntime.InferenceSession(model, settings, providers=[CPU])
    return profiled_nodes(lambda: session.run(None, {"frames": frames}), session.end_profiling)


def by_shape():
    """Frames -> Conv -> Reshape to [batch, -1], with the batch read by Shape and Gather."""
    stored = {"w": np.ones((2, 3, 3, 3), np.float32), "zero": np.array([0]), "rest": np.array([-1])}
    nodes = [
        helper.make_node("Conv", ["frames", "w"], ["conv"], "conv"),
        helper.make_node("Shape", ["frames"], ["sizes"], "sizes"),
        helper.make_node("Gather", ["sizes", "zero"], ["batch"], "batch"),
        helper.make_node("Concat", ["batch", "rest"], ["flat"], "flat", axis=0),
        helper.make_node("Reshape", ["conv", "flat"], ["logits"], "reshape"),
    ]
    graph = helper.make_graph(
        nodes,
        "by_shape",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["B", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.fixture
def shape_nodes(tmp_path):
    return nodes_of(by_shape(), np.ones((2, 3, 8, 8), np.float32), tmp_path)


def test_a_profile_names_every_node_with_provider_and_types(tiny_bundle, tmp_path):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    nodes = nodes_of(tiny_bundle.file("model.fp32.onnx").read_bytes(), frames, tmp_path)
    ops = [node.op for node in nodes]
    assert {node.provider for node in nodes} == {CPU}
    assert any("Conv" in op for op in ops)
    assert "Gemm" in ops
    assert all(node.types == {"float"} for node in nodes)
    assert not list(tmp_path.glob("run*"))


def test_computations_on_another_provider_are_refused_by_name(shape_nodes):
    with pytest.raises(SystemProblem, match="Conv conv") as failure:
        check_placement(shape_nodes, [GPU], file="a.onnx", reason="no kernel for it")
    assert "no kernel for it" in failure.value.what
    assert CPU in failure.value.what
    assert GPU in failure.value.expected


def test_shapes_may_be_computed_on_the_cpu_and_are_named(shape_nodes):
    on_gpu = [node if node.computes_shapes else replace(node, provider=GPU) for node in shape_nodes]
    ops = [node.op for node in check_placement(on_gpu, [GPU], file="a.onnx")]
    assert ops == ["Shape", "Gather", "Concat"]


def test_one_computation_on_the_cpu_is_enough_to_refuse(shape_nodes):
    mixed = [replace(node, provider=GPU) if node.op == "Conv" else node for node in shape_nodes]
    with pytest.raises(SystemProblem, match="Reshape reshape") as failure:
        check_placement(mixed, [GPU], file="a.onnx")
    assert "Conv conv" not in failure.value.what


def test_a_run_of_which_nothing_is_known_is_refused():
    with pytest.raises(SystemProblem, match=f"{GPU} ran none of the 0 nodes"):
        check_placement([], [GPU], file="a.onnx")


def test_a_provider_that_leaves_everything_to_the_next_is_refused(shape_nodes):
    on_cuda = [replace(node, provider=GPU) for node in shape_nodes]
    assert check_placement(on_cuda, [GPU], file="a.onnx") == ()
    with pytest.raises(SystemProblem, match="TensorrtExecutionProvider ran none of the"):
        check_placement(on_cuda, ["TensorrtExecutionProvider", GPU], file="a.onnx")


@pytest.mark.parametrize("text", ["", "[", "7", '{"a": 1}'])
def test_a_file_that_is_no_profile_is_refused(tmp_path, text):
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(SystemProblem, match=r"profile\.json"):
        read_profile(path)


def test_an_event_that_names_no_provider_is_no_node(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text('[{"cat": "Node", "name": "a_kernel_time", "args": 3}, {"cat": 1}, null]')
    assert read_profile(path) == ()
