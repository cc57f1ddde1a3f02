"""The real builder fuses attention in a file with float16 islands."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from finedge.bundle import PORTABLE_FILE, Bundle
from finedge.graph.float16_islands import float16_islands
from finedge.graph.inlining import inline
from finedge.runtime.trt.build.read_layers import from_log
from finedge.runtime.trt.log import collected, logger

BIRDS = Path(__file__).resolve().parents[4] / "examples" / "birds.finedge"


@pytest.fixture(scope="module")
def portable():
    return onnx.load(Bundle.load(BIRDS).file(PORTABLE_FILE))


def build(rtx, model):
    """Build an engine for SM86 and return its layers."""
    trt = rtx.trt
    with collected(trt, everything=True) as messages:
        builder = trt.Builder(logger(trt))
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger(trt))
        assert parser.parse(model.SerializeToString()), [
            parser.get_error(i).desc() for i in range(parser.num_errors)
        ]
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        shape = network.get_input(0).shape[1:]
        profile.set_shape("frames", (1, *shape), (1, *shape), (4, *shape))
        config.add_optimization_profile(profile)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        assert builder.build_serialized_network(network, config) is not None, messages.errors
        return from_log(messages)


def test_the_engine_fuses_attention_and_computes_no_product_in_float32(rtx, portable):
    plain, islands = (
        build(rtx, m).summary() for m in (inline(portable), float16_islands(inline(portable)))
    )
    assert plain["fused_attention"] == 0
    assert plain["precisions"]["matmul"]["fp32"] == 4, "what the islands are for"
    assert islands["precisions"]["attention"] == {"fp16": 2}
    assert islands["precisions"]["matmul"] == {"int8": 1}
    assert islands["unfused_softmax"] == 0
    assert (
        islands["int8_convolutions"]
        == plain["int8_convolutions"]
        == sum(n.op_type == "Conv" for n in portable.graph.node)
    )
