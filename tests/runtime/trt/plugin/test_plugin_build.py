"""NVIDIA's own parser and builder (TensorRT for RTX) take the plugin, on a machine without a GPU.

In a new process: the link of `link.py` must be there when it starts, and an error in a plugin ends
the process.
"""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.runtime.trt.plugin.node_attributes import with_node_attributes
from tests.runtime.trt.plugin.rtx_link import linked_environment

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="needs tensorrt_rtx: pip install 'finedge[rtx]'",
)

SCALE, STEP = 0.12345, 0.0321
BUILD = Path(__file__).parent / "build_engine.py"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Return a function that builds an engine of a model in a new process.

    It returns {"parsed", "errors", "built", "layers", "engine", "stderr"}.
    """
    folder = tmp_path_factory.mktemp("rtx")
    environment = linked_environment(folder)

    def run(model):
        path = folder / "model.onnx"
        onnx.save(model, path)
        done = subprocess.run(
            [sys.executable, BUILD, path],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        return {
            **report,
            "engine": path.with_suffix(".engine").read_bytes() if report["built"] else b"",
            "stderr": done.stderr,
        }

    return run


def attention_model(*, d=64, dv=96, kind="half", shared=False, domain=OP.domain, **attributes):
    """Three convolutions, then attention over a 14 x 14 map from 7 x 7 queries.

    `kind`: half, int8 (Q -> DQ -> Cast before it) or float.
    """
    rng, nodes, stored = np.random.default_rng(0), [], {}
    sizes = {"q": (d, 7), "k": (d, 14)} if shared else {"q": (d, 7), "k": (d, 14), "v": (dv, 14)}
    dtype = np.float16 if kind == "half" else np.float32
    for name, (channels, _) in sizes.items():
        stored[f"{name} weight"] = rng.normal(0, 0.05, (channels, 8, 1, 1)).astype(dtype)
        nodes.append(
            helper.make_node(
                "Cast", [name], [f"{name} in"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            )
        )
        nodes.append(helper.make_node("Conv", [f"{name} in", f"{name} weight"], [f"{name} map"]))
        if kind == "int8":
            stored |= {f"{name} step": np.float32(STEP), f"{name} zero": np.int8(0)}
            quantizer = [f"{name} step", f"{name} zero"]
            nodes.append(
                helper.make_node("QuantizeLinear", [f"{name} map", *quantizer], [f"{name} int8"])
            )
            nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"{name} int8", *quantizer], [f"{name} float"]
                )
            )
            nodes.append(
                helper.make_node(
                    "Cast", [f"{name} float"], [f"{name} half"], to=TensorProto.FLOAT16
                )
            )
    suffix = "half" if kind == "int8" else "map"
    given = {
        "scale": SCALE,
        "plugin_namespace": OP.domain,
        "plugin_version": str(OP.version),
        **attributes,
    }
    names = [f"{name} {suffix}" for name in ("q", "k", "k" if shared else "v")]
    nodes.append(helper.make_node(OP.name, names, ["mixed"], domain=domain, name="attend", **given))
    nodes.append(helper.make_node("Cast", ["mixed"], ["y"], to=TensorProto.FLOAT))
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 8, side, side])
        for n, (_, side) in sizes.items()
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(
        nodes,
        "attention",
        inputs,
        outputs,
        [numpy_helper.from_array(v, n) for n, v in stored.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(domain, OP.version)],
        ir_version=10,
    )


def plugin_layer(built):
    """Return the engine's plugin layer, split into inputs and outputs."""
    assert built["parsed"], built["errors"]
    assert built["engine"], built["stderr"]
    (line,) = [layer for layer in built["layers"] if "LayerType: custom_layer" in layer]
    inputs, outputs = line.split("Outputs:")
    return inputs, outputs


def test_a_half_precision_plugin_reads_what_the_convolutions_leave(build):
    inputs, outputs = plugin_layer(build(with_node_attributes(attention_model())))
    assert inputs.count("Datatype: Half, Format: (NHWC)") == 3
    assert "Dimensions: [-1,96,7,7]" in outputs
    assert outputs.count("Datatype: Half") == 1


def test_nothing_is_transposed_between_a_convolution_and_the_plugin(build):
    layers = build(with_node_attributes(attention_model()))["layers"]
    assert not [line for line in layers if "myl_Tran" in line]


def test_an_int8_plugin_reads_the_quantized_maps(build):
    inputs, outputs = plugin_layer(build(with_node_attributes(attention_model(kind="int8"))))
    assert inputs.count("Datatype: Int8") == 3
    assert outputs.count("Datatype: Half") == 1


def test_the_engine_carries_the_attributes(build):
    built = build(with_node_attributes(attention_model(kind="int8")))
    after = (
        built["engine"].split(b"q_scale", 1)[0][-400:]
        + built["engine"].split(b"q_scale", 1)[1][:400]
    )
    assert struct.pack("<f", SCALE) in after
    assert after.count(struct.pack("<f", STEP)) == 3


def test_int8_keys_and_values_may_meet_half_precision_queries(build):
    model = with_node_attributes(attention_model(kind="int8"))
    node = next(n for n in model.graph.node if n.op_type == OP.name)
    node.input[0] = "q half"
    next(a for a in node.attribute if a.name == "q_scale").f = 0.0
    inputs, _ = plugin_layer(build(model))
    assert inputs.count("Datatype: Int8") == 2
    assert inputs.count("Datatype: Half") == 1


@pytest.mark.parametrize("kind", ["half", "int8"])
def test_one_map_may_be_keys_and_values_of_1024_channels(build, kind):
    inputs, outputs = plugin_layer(
        build(with_node_attributes(attention_model(d=1024, dv=1024, kind=kind, shared=True)))
    )
    assert "Dimensions: [-1,1024,14,14]" in inputs
    assert "Dimensions: [-1,1024,7,7]" in outputs


def test_channels_that_are_no_multiple_of_8_are_padded(build):
    inputs, _ = plugin_layer(build(with_node_attributes(attention_model(d=20, dv=12))))
    assert "NHWC" not in inputs


def test_the_parser_has_nothing_to_warn_of(build):
    assert (
        "not found in plugin node" not in build(with_node_attributes(attention_model()))["stderr"]
    )


@pytest.mark.parametrize(
    "attributes", [{"plugin_version": "2"}, {"plugin_namespace": "other", "domain": "other"}]
)
def test_a_node_of_another_version_or_namespace_is_not_ours(build, attributes):
    built = build(attention_model(**attributes))
    assert not built["parsed"]
    assert "Plugin not found" in " ".join(built["errors"])


def test_more_channels_than_a_kernel_holds_fail_and_say_what_to_do(build):
    built = build(with_node_attributes(attention_model(d=520)))
    assert not built["engine"]
    assert "cross-layer attention over 520 channels" in built["stderr"]
    assert "--attention decomposed" in built["stderr"]


def test_float32_maps_are_refused(build):
    built = build(with_node_attributes(attention_model(kind="float")))
    assert not built["engine"]


def test_a_node_without_a_scale_is_refused(build):
    model = attention_model()
    node = next(n for n in model.graph.node if n.op_type == OP.name)
    node.attribute.remove(next(a for a in node.attribute if a.name == "scale"))
    built = build(model)
    assert not built["parsed"]
    assert "no attribute 'scale'" in built["stderr"]


def test_the_link_is_seen_only_where_the_process_started_with_it(tmp_path):
    script = "from finedge.runtime.trt.plugin.link import has_link; print(has_link())"
    without = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    for environment, expected in (
        (without, "False"),
        (linked_environment(tmp_path, without), "True"),
    ):
        assert (
            subprocess.run(
                [sys.executable, "-c", script],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            == expected
        )
