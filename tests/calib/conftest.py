"""A small network with every construction that the quantizers treat, and its pictures.

It is trained for a few seconds, and tells the pictures apart.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from finedge.bundle import GOLDEN, Bundle
from finedge.calib.ranges.observe import collect_ranges
from finedge.export.to_onnx import to_onnx
from finedge.golden import pack, synthetic_frame
from finedge.preprocess import preprocess
from finedge.runtime.ort.int8_products import EXACT_SETTING
from finedge.spec import Input, Output, Preprocess, Spec
from finedge.train.layers.cross_layer_attention import cross_layer_attention
from finedge.train.layers.gates import Gated
from finedge.train.models import build_model
from tests.made_once import made_once

SIDE = 48
# An untrained gated ResNet-18 in INT8 against itself in float: measured .934 to .982; without gates
# .985 to .990.
MIN_CORRELATION = 0.9
LABELS = ("level", "upright", "rising", "falling")  # the way a patch of stripes runs
SPEC = Spec("tiny", "tiny", LABELS, Preprocess(SIDE, SIDE), Input(SIDE, SIDE))


def pictures(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw smooth coloured backgrounds with a striped patch.

    uint8 [count, SIDE, SIDE, 3], and labels [count] in turn.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(LABELS)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    frames = []
    for label in labels:
        a, b, c = rng.uniform(-1.5, 1.5, (3, 3))
        frame = 128 + a * (x[..., None] - 24) + b * (y[..., None] - 24) + 20 * c
        wave = 50 * np.sin(rng.uniform(0.6, 0.9) * (y, x, x + y, x - y)[label] + rng.uniform(0, 6))
        top, left = rng.integers(0, SIDE - 24, 2)
        frame[top : top + 24, left : left + 24] += wave[top : top + 24, left : left + 24, None]
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return np.stack(frames), labels


def _layer(
    inside: int, outside: int, activation: nn.Module | None = None, **options: int
) -> nn.Sequential:
    kernel = options.pop("kernel", 3)
    conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), *([activation] if activation else []))


class Tiny(nn.Module):
    """A network with every construction that the quantizers treat.

    A stem with max-pool, an identity shortcut, a downsampling shortcut, a depthwise layer, ReLU and
    ReLU6, and attention between two layers.
    """

    outputs = (Output(),)
    taps = ()

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_layer(3, 16, nn.ReLU()), nn.MaxPool2d(2))
        self.same = nn.Sequential(_layer(16, 16, nn.ReLU()), _layer(16, 16))
        self.down = nn.Sequential(
            _layer(16, 32, nn.ReLU6(), stride=2),
            _layer(32, 32, nn.ReLU6(), groups=32),
            _layer(32, 32, kernel=1),
        )
        self.shortcut = _layer(16, 32, kernel=1, stride=2)
        self.q, self.k, self.v = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.z = nn.Conv2d(16, 32, 1)
        self.classifier = nn.Linear(32, len(LABELS))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(images)
        x = F.relu(self.same(x) + x)
        y = F.relu(self.down(x) + self.shortcut(x))
        y = self.z(cross_layer_attention(self.q(y), self.k(x), self.v(x), scale=0.25)) + y
        return {"logits": self.classifier(y.mean(dim=(2, 3)))}


def _train(steps: int = 40) -> Tiny:
    torch.manual_seed(0)
    model = Tiny().train()
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    frames, labels = pictures(32 * steps, seed=1)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (SPEC.preprocess.mean, SPEC.preprocess.std)
    )
    for start in range(0, len(frames), 32):
        images = (
            torch.from_numpy(frames[start : start + 32]).permute(0, 3, 1, 2) / 255 - mean
        ) / std
        loss = F.cross_entropy(
            model(images)["logits"], torch.from_numpy(labels[start : start + 32])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Case:
    """The float model, its calibration table (method max), and pictures that it has not seen.

    Neither training nor calibration saw them.
    """

    model: onnx.ModelProto
    table: object
    frames: np.ndarray
    labels: np.ndarray


def batches(frames: np.ndarray, *, size: int = 16) -> Iterator[np.ndarray]:
    return (frames[i : i + size] for i in range(0, len(frames), size))


def logits(
    model: onnx.ModelProto, frames: np.ndarray, *, optimized: Path | None = None
) -> np.ndarray:
    """Run in ONNX Runtime with exact INT8 products; `optimized` receives the graph that runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_SETTING)
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run(None, {"frames": frames})[0]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two models' logits [N, classes], less their mean over pictures."""
    return float(np.corrcoef((a - a.mean(0)).ravel(), (b - b.mean(0)).ravel())[0, 1])


@pytest.fixture(scope="session")
def tiny() -> Case:
    return _case("tiny", _tiny)


def _case(name: str, make: Callable[[], Case]) -> Case:
    """Return a case that all processes share."""
    file = made_once(f"cases/{name}", lambda path: path.write_bytes(pickle.dumps(make())))
    return pickle.loads(file.read_bytes())


def _tiny() -> Case:
    graph, _ = to_onnx(_train(), SPEC)
    model = ir.to_proto(graph)
    table = collect_ranges(model, batches(pictures(64, seed=2)[0]))
    return Case(model, table, *pictures(256, seed=3))


GATED = {"ca": {}, "csca": {}, "csca sequential": {"order": "sequential"}}


@pytest.fixture(scope="session", params=GATED)
def gated(request: pytest.FixtureRequest) -> Case:
    """A network with a gate in every residual unit, the gates moved off their start.

    It has learned nothing, so its labels say nothing.
    """
    return _case(request.param, functools.partial(_gated, request.param))


def _gated(choice: str) -> Case:
    torch.manual_seed(0)
    model = build_model(choice.split()[0], num_classes=8, backbone="resnet18", **GATED[choice])
    model.classifier.dropout.p = 0.0
    frames = pictures(32, seed=2)[0]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics of the pictures
            if isinstance(module, Gated):
                for parameter in module.gate.parameters():
                    nn.init.normal_(parameter, std=0.05)
        model.train()(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
    graph, _ = to_onnx(model.eval(), SPEC)
    proto = ir.to_proto(graph)
    return Case(proto, collect_ranges(proto, batches(frames)), *pictures(32, seed=3))


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ and val/ in class folders; no image twice."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count, seed in (("train", 48, 2), ("val", 8, 4), ("test", 16, 3)):
        for index, (frame, label) in enumerate(zip(*pictures(count, seed=seed), strict=True)):
            file = root / split / LABELS[label] / f"{index:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), frame[..., ::-1])
    return root


def write_bundle(case: Case, path: Path) -> Bundle:
    """Write a case's float model as a new bundle at `path`."""
    pixels = preprocess(synthetic_frame(), SPEC.preprocess)
    golden = {
        "frame": synthetic_frame(),
        "input": pixels,
        "model.fp32.onnx/logits": logits(case.model, pixels[None]),
    }
    # Class folders are read in the order of their names.
    spec = Spec("tiny", "tiny", tuple(sorted(LABELS)), SPEC.preprocess, SPEC.input)
    files = {"model.fp32.onnx": case.model.SerializeToString(), GOLDEN: pack(golden)}
    return Bundle.create(path, spec, files=files, provenance={"export": {"opset": 20}})


@pytest.fixture
def bundle(tiny: Case, tmp_path: Path) -> Bundle:
    return write_bundle(tiny, tmp_path / "tiny.finedge")
