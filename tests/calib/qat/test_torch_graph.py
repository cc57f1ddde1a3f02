"""A float ONNX graph as a torch module, and modelopt's fake quantizers in it."""

import numpy as np
import onnx
import pytest
import torch

from finedge.calib.qat.fake_quantizers import add_fake_quantizers
from finedge.calib.qat.placement import placement_of
from finedge.calib.qat.torch_graph import TorchGraph
from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from finedge.errors import FinedgeError
from finedge.graph.edit import with_unique_names
from finedge.graph.inlining import inline
from tests.calib.conftest import correlation, logits

ROUNDING = 1e-5  # of max |logit|: float32 in another order
# Of ONNX Runtime's and modelopt's roundings: a value between two steps goes to either side.
SAME_STEPS = 0.999


@pytest.fixture(scope="module")
def named(tiny):
    return with_unique_names(inline(tiny.model))


def _scores(graph, frames):
    with torch.no_grad():
        return graph(torch.from_numpy(frames))["logits"].numpy()


def test_it_computes_what_onnx_runtime_computes(named, tiny):
    exact = logits(named, tiny.frames[:16])
    error = np.abs(_scores(TorchGraph(named), tiny.frames[:16]) - exact).max()
    assert error <= ROUNDING * np.abs(exact).max()


def test_gated_networks_too(gated):
    named = with_unique_names(inline(gated.model))
    exact = logits(named, gated.frames[:4])
    error = np.abs(_scores(TorchGraph(named), gated.frames[:4]) - exact).max()
    assert error <= ROUNDING * max(1, np.abs(exact).max())


def test_its_weights_are_written_back(named, tiny):
    graph = TorchGraph(named)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.mul_(1.01)
    changed = graph.write_to(named)
    error = np.abs(logits(changed, tiny.frames[:8]) - _scores(graph, tiny.frames[:8])).max()
    assert error <= ROUNDING * np.abs(logits(changed, tiny.frames[:8])).max()


def test_fake_quantizers_compute_what_the_tensorrt_file_computes(named, tiny):
    quantized = with_unique_names(quantize_for_tensorrt(named, tiny.table)[0])
    graph = add_fake_quantizers(TorchGraph(named), placement_of(quantized))
    file = logits(quantized, tiny.frames)
    assert correlation(_scores(graph, tiny.frames), file) > SAME_STEPS
    assert np.abs(file - logits(named, tiny.frames)).max() > 0


def test_a_layer_kept_in_float_has_no_fake_quantizer(named, tiny):
    layer = next(n.name for n in named.graph.node if n.op_type == "Conv")
    quantized, _ = quantize_for_tensorrt(named, tiny.table, keep_float=frozenset({layer}))
    placement = placement_of(with_unique_names(quantized))
    assert layer not in placement.weights
    graph = add_fake_quantizers(TorchGraph(named), placement)
    assert not graph.layers[graph.keys[layer]].weight_quantizer.is_enabled


def test_an_op_without_a_torch_form_is_named():
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[b, 2] x) => (float[b, 2] y) { y = Celu(x) }"""
    with pytest.raises(FinedgeError, match="Celu"):
        TorchGraph(with_unique_names(onnx.parser.parse_model(text)))
