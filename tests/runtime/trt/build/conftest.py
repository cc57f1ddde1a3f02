"""A small bundle with cross-layer attention in every precision, made without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.bundle import FLOAT_FILE, HALF_FILE, PORTABLE_FILE, Bundle, Tap
from finedge.early_exit import segment_file
from finedge.graph.edit import with_unique_names
from finedge.graph.float16 import convert_float16
from finedge.graph.keep_float32 import keep_float32
from finedge.graph.segments import cut
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN
from finedge.runtime.trt.build.key import EngineKey
from finedge.spec import Input, Preprocess, Spec
from tests.runtime.early_exit.conftest import HEAD, TWO_HEADS, two_heads
from tests.runtime.trt.plugin.rtx_link import linked_environment

SIZE, CLASSES = 32, 6
SPEC = Spec("tiny", "none", tuple("abcdef"), Preprocess(resize=36, crop=SIZE), Input(SIZE, SIZE))
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
KEY = EngineKey(
    "a" * 64,
    "",
    "tensorrt",
    "10.3.0.30",
    "Orin",
    "8.7",
    "int8",
    (1, 1, 8),
    ("attention=plugin", "typing=strong", "workspace_mib=1024"),
)
TAPS = (Tap("keys", "k"),)
ATTRIBUTES = {"scale": 0.125, "plugin_namespace": DOMAIN, "plugin_version": "1"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def rtx_environment(rtx, tmp_path_factory):
    """The environment of a process that may use plugins."""
    return linked_environment(tmp_path_factory.mktemp("lib"))


@pytest.fixture
def finedge():
    """Run the command in a new process: `finedge("build", bundle, env=...)` returns it."""

    def run(*words, env=None):
        return subprocess.run(
            [sys.executable, "-m", "finedge", *map(str, words)],
            capture_output=True,
            text=True,
            env=env,
            timeout=110,
            check=False,
        )

    return run


@dataclass(frozen=True)
class Heads:
    """Sizes of the attention: channels of q and k, channels of v; shared means k is v."""

    d: int = 16
    dv: int = 16
    shared: bool = False


@pytest.fixture
def attention_bundle(tmp_path):
    """Make a bundle whose files come from one graph: `attention_bundle(Heads(d=512), batch=4)`."""

    def make(heads=Heads(), *, batch="batch", name="tiny", taps=TAPS):
        model = attention_model(heads, batch=batch)
        named = with_unique_names(model)
        half = convert_float16(named, keep=keep_float32(named.graph))
        files = {FLOAT_FILE: model, HALF_FILE: half, PORTABLE_FILE: quantized(model)}
        return Bundle.create(
            tmp_path / f"{name}.finedge",
            SPEC,
            files={n: m.SerializeToString() for n, m in files.items()},
            taps=taps,
            provenance={"train": {"run": "r"}},
        )

    return make


@pytest.fixture
def segmented_bundle(tmp_path):
    """A bundle in two segments, in every precision; an INT8 map crosses the INT8 file's cut."""
    model = with_unique_names(two_heads())
    half = convert_float16(model, keep=keep_float32(model.graph))
    files = {FLOAT_FILE: model, HALF_FILE: half, PORTABLE_FILE: quantized(_with_int8_map(model))}
    parts = {
        segment_file(name, k): part
        for name, whole in files.items()
        for k, part in enumerate(cut(whole, [HEAD]))
    }
    segments = {"exits": [{"output": HEAD, "macs": 100}], "macs": 200}
    return Bundle.create(
        tmp_path / "segmented.finedge",
        TWO_HEADS,
        files={n: m.SerializeToString() for n, m in {**files, **parts}.items()},
        provenance={"train": {"run": "r"}, "export": {"segments": segments}},
    )


def _with_int8_map(model):
    """Quantize the map that the second convolution reads."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    graph.initializer.extend(
        [_constant("map_scale", np.float32(0.02)), _constant("map_zero", np.int8(0))]
    )
    second = next(node for node in graph.node if node.output[0] == "conv2")
    pair = _pair(second.input[0], "map_scale", "map_zero", to="map")
    second.input[0] = "map"
    place = list(graph.node).index(second)
    nodes = [*graph.node[:place], *pair, *graph.node[place:]]
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copied)
    return copy


def attention_model(heads=Heads(), *, batch="batch"):
    """Frames -> maps of 4x4 and 8x8 -> attention -> doubled by a function -> average -> classes."""
    rng = np.random.default_rng(0)
    sizes = {
        "w_q": (heads.d, 3, 8, 8),
        "w_k": (heads.d, 3, 4, 4),
        "w_v": (heads.dv, 3, 4, 4),
        "w_fc": (CLASSES, heads.dv),
    }
    v = "k" if heads.shared else "v"
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w_q"], ["q"], "conv_q", strides=[8, 8]),
        helper.make_node("Conv", ["planes", "w_k"], ["k"], "conv_k", strides=[4, 4]),
        helper.make_node("Conv", ["planes", "w_v"], ["v"], "conv_v", strides=[4, 4]),
        helper.make_node(
            CROSS_LAYER_ATTENTION.name, ["q", "k", v], ["y"], "attend", domain=DOMAIN, **ATTRIBUTES
        ),
        helper.make_node("Twice", ["y"], ["doubled"], "twice", domain=DOMAIN),
        helper.make_node("GlobalAveragePool", ["doubled"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w_fc"], ["logits"], "fc", transB=1),
    ]
    if heads.shared:
        nodes = [n for n in nodes if n.name != "conv_v"]
        del sizes["w_v"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [batch, SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [
            numpy_helper.from_array((rng.normal(0, 0.1, shape) / 25).astype(np.float32), name)
            for name, shape in sizes.items()
        ],
    )
    twice = helper.make_function(
        DOMAIN,
        "Twice",
        ["tw__x"],
        ["tw__y"],
        [helper.make_node("Add", ["tw__x", "tw__x"], ["tw__y"])],
        OPSETS[:1],
    )
    return helper.make_model(
        graph, opset_imports=OPSETS, ir_version=10, functions=[attention_function(), twice]
    )


def attention_function():
    """The body of the op, as the export writes it: rank 4, scale on q."""
    text = """
    <opset_import: ["" : 20], domain: "finedge">
    CrossLayerAttention <scale> (cla__q, cla__k, cla__v) => (cla__y) {
        cla__head = Constant <value_ints = [1]> ()
        cla__flat = Constant <value_ints = [0, 0, -1]> ()
        cla__plain = Constant <value_float: float = @scale> ()
        cla__factor = CastLike (cla__plain, cla__q)
        cla__q3 = Reshape (cla__q, cla__flat)
        cla__k3 = Reshape (cla__k, cla__flat)
        cla__v3 = Reshape (cla__v, cla__flat)
        cla__q4 = Unsqueeze (cla__q3, cla__head)
        cla__keys = Unsqueeze (cla__k3, cla__head)
        cla__v4 = Unsqueeze (cla__v3, cla__head)
        cla__rows = Transpose <perm = [0, 1, 3, 2]> (cla__q4)
        cla__vals = Transpose <perm = [0, 1, 3, 2]> (cla__v4)
        cla__scaled = Mul (cla__rows, cla__factor)
        cla__scores = MatMul (cla__scaled, cla__keys)
        cla__weights = Softmax <axis = -1> (cla__scores)
        cla__mixed = MatMul (cla__weights, cla__vals)
        cla__back = Transpose <perm = [0, 1, 3, 2]> (cla__mixed)
        cla__first = Constant <value_ints = [0, -1]> ()
        cla__last = Shape <start = 2, end = 4> (cla__q)
        cla__shape = Concat <axis = 0> (cla__first, cla__last)
        cla__y = Reshape (cla__back, cla__shape)
    }"""
    return onnx.parser.parse_function(text)


def quantized(model):
    """The portable form of the convolutions: symmetric S8, weights per output channel."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, nodes = copy.graph, []
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    graph.initializer.extend(
        [_constant("in_scale", np.float32(2.0)), _constant("in_zero", np.int8(0))]
    )
    for node in graph.node:
        if node.op_type == "Conv":
            if node.input[0] == "planes":
                nodes += _pair("planes", "in_scale", "in_zero", to=f"{node.name}/planes")
                node.input[0] = f"{node.name}/planes"
            nodes.append(_quantize_weight(graph, node, stored[node.input[1]]))
        nodes.append(node)
    copied = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copied)
    return copy


def _pair(tensor, scale, zero, *, to):
    quantize = helper.make_node(
        "QuantizeLinear", [tensor, scale, zero], [f"{to}/q"], f"{to}/quantize"
    )
    return [
        quantize,
        helper.make_node("DequantizeLinear", [f"{to}/q", scale, zero], [to], f"{to}/dequantize"),
    ]


def _quantize_weight(graph, node, values):
    scale = np.abs(values).max(axis=(1, 2, 3)) / 127
    name = node.input[1]
    whole = np.rint(values / scale[:, None, None, None]).astype(np.int8)
    graph.initializer.extend(
        [
            _constant(f"{name}/q", whole),
            _constant(f"{name}/scale", scale),
            _constant(f"{name}/zero", np.zeros(len(scale), np.int8)),
        ]
    )
    node.input[1] = f"{name}/float"
    return helper.make_node(
        "DequantizeLinear",
        [f"{name}/q", f"{name}/scale", f"{name}/zero"],
        [f"{name}/float"],
        f"{name}/dequantize",
        axis=0,
    )


def _constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)
