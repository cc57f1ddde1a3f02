"""Every model of the registry on a large and on a small backbone, all the way: gradients, start, parity, both INT8 files, explain."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from finedge.bundle import CPU_FILE, FLOAT_FILE, PORTABLE_FILE, Bundle
from finedge.calib.command import calibrate
from finedge.calib.placement import MAKES_MASKS
from finedge.cli import main
from finedge.export.command import export
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.render.command import render
from finedge.runtime.ort import OnnxRuntimeBackend
from finedge.train import backbones, models, session
from finedge.train.checkpoint import NAME, save_checkpoint
from finedge.train.distributed import World
from finedge.train.loader import normalise
from finedge.train.models import FineGrained
from finedge.train.trainer import Machine

BACKBONES = {"resnet50": (pytest.mark.slow,), "efficientnet_lite0": ()}
SIDE = 64
# Models whose new parts add nothing until they have learnt something: with the same weights they answer as the plain network does.
STARTS_AS_PLAIN = ("cnl", "nl", "fcn", "ca", "sa", "csca")
# An untrained network of random weights has no margin: only that INT8 follows FP32 at all is asked of it.
LEAST_CORRELATION = 0.9


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    render(folder, classes=4, train=8, val=4, test=2, size=80)
    return folder


@pytest.fixture(scope="module", params=[pytest.param((name, b), marks=marks, id=f"{name}-{b}") for name in models.names() for b, marks in BACKBONES.items()])
def run(request, pictures, tmp_path_factory):
    """The run of a model that was never trained, but whose every parameter is off its start, with its BatchNorms at the statistics of the pictures."""
    name, backbone = request.param
    weights = "none" if backbone == "resnet50" else "imagenet"
    given = {"data": pictures, "model": name, "backbone": backbone, "weights": weights, "size": SIDE, "batch_size": 8, "epochs": 1}
    trainer = session.fresh(tmp_path_factory.mktemp("run") / "run", given, machine=Machine(World(torch.device("cpu")), workers=1))
    move(trainer.job.model)
    settle(trainer.job.model, images(trainer, count=32), pretrained=weights != "none")
    save_checkpoint(trainer.job.path / NAME, trainer.job.model, optimizer=trainer.optimizer, ema=None, epoch=1)
    return trainer


@pytest.fixture(scope="module")
def bundle(run, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "model.finedge"
    parity = export(run.job.path, out=path)["parity"]
    assert parity["max_abs"] <= parity["limit"]
    calibrate(path, data=pictures, images=32)
    return Bundle.load(path)


def move(model: FineGrained) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.new_parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def settle(model: FineGrained, batch: torch.Tensor, *, pretrained: bool) -> None:
    """Give every untrained BatchNorm the statistics of a batch: without them, activations grow or vanish over fifty layers."""
    trained = set(model.backbone.modules()) if pretrained else set()
    for end in () if pretrained else model.backbone.residual_ends:
        # As trained residual networks are: branches that change little. Sixteen random ones at full size make noise of anything.
        torch.nn.init.constant_(next(m for m in model.backbone.get_submodule(end).modules() if isinstance(m, _BatchNorm)).weight, 0.2)
    model.train()
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        if norm in trained:
            norm.eval()
            continue
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of what was seen
    with torch.no_grad():
        model(batch)


def images(trainer, *, count):
    """Training images as the model takes them: float [count, 3, SIDE, SIDE]."""
    how = trainer.job.spec.preprocess
    return normalise(torch.from_numpy(np.stack([preprocess(read_image(i.path), how) for i in trainer.job.data.split("train")[:count]])), how)


def test_every_parameter_gets_a_gradient(run):
    model = run.job.model.train()
    model.loss(model(images(run, count=4)), torch.tensor([0, 1, 2, 3]), label_smoothing=0.1).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    model.zero_grad()
    assert without == []


@torch.no_grad()
def test_it_starts_as_the_plain_network_where_the_paper_has_that(run):
    name, backbone = run.job.spec.model, run.job.spec.backbone
    if name not in STARTS_AS_PLAIN:
        pytest.skip(f"{name} has a head of its own")
    body = backbones.make(backbone, weights="none")
    plain = models.entry("plain")(copy.deepcopy(body), 4).eval()
    model = models.entry(name)(body, 4).eval()
    model.classifier.load_state_dict(plain.classifier.state_dict())
    batch = images(run, count=2)
    assert torch.equal(model(batch)["logits"], plain(batch)["logits"])


def test_both_int8_files_follow_the_float_file(bundle, pictures):
    items = sorted(pictures.glob("test/*/*"))[:8]
    batch = np.stack([preprocess(read_image(path), bundle.spec.preprocess) for path in items])
    runtime, main_output = OnnxRuntimeBackend(), bundle.spec.main.name
    expected = runtime.open(bundle, variant="fp32")(batch)[main_output]
    for file in (PORTABLE_FILE, CPU_FILE):
        found = runtime.open_file(bundle, file)(batch)[main_output]
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > LEAST_CORRELATION, file


def test_every_convolution_computes_in_int8_but_those_that_make_masks(bundle):
    convolutions = {n.output[0] for n in onnx.load(bundle.file(FLOAT_FILE)).graph.node if n.op_type == "Conv"}
    for file, placed in bundle.provenance["calibrate"]["placements"].items():
        masks = [name for name, why in placed["stays_float"].items() if why == MAKES_MASKS]
        assert len(masks) == (3 if bundle.spec.model == "attend_rectify" and file == CPU_FILE else 0)
        assert len(placed["int8"]) >= len(convolutions) - len(masks) + 1, file  # and a linear layer
        ours = {n.name for n in onnx.load(bundle.file(PORTABLE_FILE)).graph.node if n.domain == "finedge"}
        assert file == CPU_FILE or ours <= set(placed["stays_float"])


def test_explain_draws_every_view(bundle, pictures, tmp_path, capsys):
    image = next(pictures.glob("test/*/*"))
    assert main(["explain", str(bundle.path), str(image), "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])
    assert bundle.views
    assert (tmp_path / "out" / "index.html").is_file()
