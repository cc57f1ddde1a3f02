"""Every model of the registry on a small backbone, some on a large one, through all stages.

Gradients, start, parity, both INT8 files, explain, what TensorRT gets.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
import torch

from finedge.bundle import CPU_FILE, FLOAT_FILE, PORTABLE_FILE
from finedge.calib.quantizers.report import MAKES_MASKS
from finedge.cli import main
from finedge.early_exit import segment_file
from finedge.graph.onnx_file import read_model
from finedge.graph.tags import NODE, tags
from finedge.image import read_image
from finedge.ops import DOMAIN
from finedge.preprocess import preprocess
from finedge.runtime.agreement import FLOAT_LIMIT
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.segments import run_in_segments, run_whole
from finedge.runtime.trt.build.graph import prepare
from finedge.runtime.trt.build.options import FILES, BuildOptions
from finedge.train import backbones, models
from tests.flow.conftest import LARGE, LARGE_MODELS

CASES = [pytest.param((name, "efficientnet_lite0"), id=name) for name in models.names()]
CASES += [
    pytest.param((name, LARGE), marks=pytest.mark.slow, id=f"{name}-{LARGE}")
    for name in LARGE_MODELS
]
# The new parts of these models add nothing before training. With the same weights they give the
# scores of the plain network.
STARTS_AS_PLAIN = ("cnl", "nl", "fcn", "ca", "sa", "csca")
# An untrained network of random weights has no margin: INT8 need only follow FP32.
MIN_CORRELATION = 0.9


@pytest.fixture(scope="module", params=CASES)
def run(request, untrained):
    return untrained.run(*request.param)


@pytest.fixture(scope="module")
def bundle(run, untrained):
    return untrained.bundle(run.job.spec.model, run.job.spec.backbone)


def test_every_parameter_gets_a_gradient(run, images_of):
    model = run.job.model.train()
    model.loss(
        model(images_of(run, count=4)), torch.tensor([0, 1, 2, 3]), label_smoothing=0.1
    ).backward()
    without = [
        key
        for key, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    model.zero_grad()
    assert without == []


@torch.no_grad()
def test_it_starts_as_the_plain_network_where_the_paper_has_that(run, images_of):
    name, backbone = run.job.spec.model, run.job.spec.backbone
    if name not in STARTS_AS_PLAIN:
        pytest.skip(f"{name} has a head of its own")
    body = backbones.make(backbone, weights="none")
    plain = models.entry("plain")(copy.deepcopy(body), 4).eval()
    model = models.entry(name)(body, 4).eval()
    model.classifier.load_state_dict(plain.classifier.state_dict())
    batch = images_of(run, count=2)
    assert torch.equal(model(batch)["logits"], plain(batch)["logits"])


def test_segments_are_the_whole_model_bit_for_bit_in_int8(bundle, pictures):
    exits = [one.output for one in bundle.export.segments.exits]
    if not exits:
        pytest.skip(f"{bundle.spec.model} is not cut")
    items = sorted(pictures.glob("test/*/*"))[:4]
    batch = np.stack([preprocess(read_image(path), bundle.spec.preprocess) for path in items])
    for file in (FLOAT_FILE, PORTABLE_FILE, CPU_FILE):
        whole = run_whole(bundle.file(file).read_bytes(), batch, name=file)
        names = [segment_file(file, k) for k in range(len(exits) + 1)]
        parts = [bundle.file(name).read_bytes() for name in names]
        composed = run_in_segments(parts, batch, name=file)
        for name, scores in whole.items():
            atol = FLOAT_LIMIT if file == FLOAT_FILE else 0.0
            np.testing.assert_allclose(composed[name], scores, atol=atol, rtol=0)


def test_every_file_passes_the_full_check(bundle):
    for file in (FLOAT_FILE, PORTABLE_FILE, CPU_FILE):
        onnx.checker.check_model(bundle.file(file), full_check=True)


def test_both_int8_files_follow_the_float_file(bundle, pictures):
    items = sorted(pictures.glob("test/*/*"))[:8]
    batch = np.stack([preprocess(read_image(path), bundle.spec.preprocess) for path in items])
    runtime, main_output = OnnxRuntimeBackend(SessionOptions(exact=True)), bundle.spec.main.name
    expected = runtime.open(bundle, variant="fp32")(batch)[main_output]
    for file in (PORTABLE_FILE, CPU_FILE):
        found = runtime.open_file(bundle, file)(batch)[main_output]
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > MIN_CORRELATION, file


def test_every_convolution_computes_in_int8_but_those_that_make_masks(bundle):
    convolutions = {
        n.output[0] for n in onnx.load(bundle.file(FLOAT_FILE)).graph.node if n.op_type == "Conv"
    }
    for file, placed in bundle.provenance["calibrate"]["placements"].items():
        masks = [name for name, why in placed["stays_float"].items() if why == MAKES_MASKS]
        assert len(masks) == (
            3 if bundle.spec.model == "attend_rectify" and file == CPU_FILE else 0
        )
        assert len(placed["int8"]) >= len(convolutions) - len(masks) + 1, file  # and a linear layer
        nodes = onnx.load(bundle.file(PORTABLE_FILE)).graph.node
        ours = {tags(n)[NODE] for n in nodes if NODE in tags(n)}
        assert ours or bundle.spec.model != "cnl"
        assert file == CPU_FILE or ours <= set(placed["stays_float"])


def test_explain_draws_every_view(bundle, pictures, tmp_path, capsys):
    image = next(pictures.glob("test/*/*"))
    assert main(["explain", str(bundle.path), str(image), "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])
    assert bundle.views
    assert (tmp_path / "out" / "index.html").is_file()


def test_no_name_inside_a_function_is_a_tensor_of_the_graph(bundle):
    # TensorRT's importer binds formals by name, one after another: such a name would get another
    # tensor (test_miscompiles.py).
    for file in (f for f in bundle.files if f.endswith(".onnx")):
        model = onnx.load(bundle.file(file))
        outer = {t for n in model.graph.node for t in (*n.input, *n.output)} | {
            t.name for t in model.graph.initializer
        }
        inner = {
            t
            for f in model.functions
            for t in (*f.input, *f.output, *(t for n in f.node for t in (*n.input, *n.output)))
        }
        assert not (outer & inner) - {""}, file


@pytest.mark.parametrize("precision", FILES)
def test_tensorrt_is_given_no_function_and_no_call(bundle, precision):
    options = BuildOptions(precision=precision, attention="decomposed")
    model = prepare(read_model(bundle.file(options.file)), options)
    assert not model.functions
    assert not [n for n in model.graph.node if n.domain == DOMAIN]
    names = [n.name for n in model.graph.node]
    assert len(set(names)) == len(names), "the layer report tells nodes apart by their names"


def test_the_portable_file_has_no_form_that_tensorrt_runs_in_float(bundle):
    graph = onnx.load(bundle.file(PORTABLE_FILE)).graph
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert not constants[node.input[1]].dims, f"{node.name}: an activation scale a channel"
        if node.op_type == "DequantizeLinear":
            weight = constants.get(node.input[0])
            scale = list(constants[node.input[1]].dims)
            axis = [a.i for a in node.attribute if a.name == "axis"]
            assert (scale, axis) == (([weight.dims[0]], [0]) if weight else ([], [])), node.name
            assert constants[node.input[2]].data_type == onnx.TensorProto.INT8
            assert not any(constants[node.input[2]].raw_data), f"{node.name}: a zero point"
