"""Every model file opens in readers that know nothing of finedge, as it is, and answers as ONNX Runtime does.

The reference is ONNX Runtime without its optimisations: Q/DQ pairs are then computed one by one in float, alike on every CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from finedge.bundle import HALF_FILE, Bundle
from finedge.golden import read_golden
from finedge.jetson.serve_config.command import serve_config
from finedge.train import models

BIRDS = Path(__file__).resolve().parents[2] / "examples" / "birds.finedge"
BACKBONE = "efficientnet_lite0"
# The bundles of test_every_model.py; one of them by default, with attention.
NAMES = [pytest.param(n, marks=[] if n == "cnl" else [pytest.mark.slow]) for n in models.names()]

# Of max(1, largest score). Float: only the order of sums may differ; over fifty layers of other kernels 2e-5 was seen. Half: each
# reader computes it in float32 or in float16. INT8: readers fuse differently and round at other Q/DQ pairs, as `verify` allows for.
LIMITS = {"fp32": 1e-3, "projected": 1e-3, "fp16": 2e-2, "int8": 0.15}


# Found by this test with OpenCV 5.0.0. ONNX Runtime and OpenVINO agree on all of them.
BEYOND = {
    "cv2": ("attend_rectify", "cs", "clca_cga", "sa", "csca"),
    "cv2 classic": ("attend_rectify", "clca_cga"),
}
# An untrained network has no margin: INT8 rounding grows with its depth (7 of 37 measured). That it follows is asked of it.
LEAST_CORRELATION = 0.9


def bundle_is_untrained(path: Path) -> bool:
    return BIRDS not in path.parents


@dataclass(frozen=True)
class Reader:
    """Opens a file and answers one batch: {output name: scores}."""

    name: str
    run: Callable[[Path, np.ndarray], dict[str, np.ndarray]]


def in_onnxruntime(path: Path, frames: np.ndarray) -> dict[str, np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: frames}), strict=True))


def in_openvino(path: Path, frames: np.ndarray) -> dict[str, np.ndarray]:
    openvino = pytest.importorskip("openvino")
    # Without the hint a CPU with AMX or AVX-512 computes in bfloat16, which is another question.
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {port.get_any_name(): value for port, value in model({0: frames}).items()}


def in_cv2(path: Path, frames: np.ndarray, *, engine: str) -> dict[str, np.ndarray]:
    # OpenCV 4 knows one engine and has no name for it.
    chosen = [getattr(cv2.dnn, engine)] if hasattr(cv2.dnn, engine) else []
    net = cv2.dnn.readNetFromONNX(str(path), *chosen)
    net.setInput(frames)
    names = net.getUnconnectedOutLayersNames()
    outputs = [o.name for o in onnx.load(path).graph.output]
    return dict(zip(outputs, net.forward(names), strict=True))


NEW, CLASSIC = (partial(in_cv2, engine=e) for e in ("ENGINE_AUTO", "ENGINE_CLASSIC"))
READERS = [Reader("openvino", in_openvino), Reader("cv2", NEW), Reader("cv2 classic", CLASSIC)]
reader = pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch):
    # OpenVINO counts its imports, and sends that, unless it is a CI's: its own switch (openvino_telemetry, disable_in_ci).
    monkeypatch.setenv("CI", "true")


def golden_input(bundle: Bundle) -> np.ndarray:
    return np.asarray(read_golden(bundle)["input"], np.uint8)[None]


def check(path: Path, frames: np.ndarray, *, reader: Reader) -> None:
    expected, found = in_onnxruntime(path, frames), reader.run(path, frames)
    limit = LIMITS[path.name.split(".")[1] if path.name.startswith("model.") else "fp32"]
    assert found.keys() == expected.keys(), path.name
    for name, scores in expected.items():
        if "int8" in path.name and bundle_is_untrained(path):
            assert np.corrcoef(found[name].ravel(), scores.ravel())[0, 1] > LEAST_CORRELATION, (path.name, name)
            continue
        worst = float(np.abs(found[name] - scores).max())
        assert worst <= limit * max(1.0, float(np.abs(scores).max())), (path.name, name, worst)


def check_all(bundle: Bundle, *, reader: Reader) -> None:
    frames = golden_input(bundle)
    for path in (bundle.file(name) for name in bundle.files if name.endswith(".onnx")):
        if reader.run is not CLASSIC or path.name != HALF_FILE:
            check(path, frames, reader=reader)


@pytest.fixture(scope="module")
def framed(untrained, tmp_path_factory):
    from finedge.export.command import export

    path = tmp_path_factory.mktemp("framed") / "framed.finedge"
    export(untrained.run("cnl", BACKBONE).job.path, out=path, frame="72x96")
    return Bundle.load(path)


@reader
def test_every_file_of_the_bundle_that_ships_opens(reader):
    check_all(Bundle.load(BIRDS), reader=reader)


@pytest.mark.parametrize("name", NAMES)
@reader
def test_every_file_of_every_model_opens(untrained, name, reader):
    if name in BEYOND.get(reader.name, ()):
        pytest.xfail("OpenCV 5.0.0 refuses or miscomputes it: not looked into yet")
    check_all(untrained.bundle(name, BACKBONE), reader=reader)


@reader
def test_a_graph_that_takes_whole_frames_opens(framed, reader):
    check_all(framed, reader=reader)


@reader
@pytest.mark.parametrize(("target", "variant"), [("triton", "int8"), ("deepstream", "fp32")])
def test_what_is_written_for_servers_opens(tmp_path, reader, target, variant):
    served = serve_config(target, BIRDS, out=tmp_path / "out", variant=variant)
    (path,) = [tmp_path / "out" / f for f in served["files"] if f.endswith(".onnx")]
    pixels = golden_input(Bundle.load(BIRDS))
    kind = onnx.load(path).graph.input[0].type.tensor_type.elem_type
    frames = pixels if kind == onnx.TensorProto.UINT8 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
    named = path.rename(path.with_name(f"model.{variant}.onnx"))
    check(named, frames, reader=reader)


def test_the_classic_engine_of_opencv_takes_no_half_precision():
    if not hasattr(cv2.dnn, "ENGINE_CLASSIC"):
        pytest.skip("OpenCV 4: its only engine is this one, with words of its own")
    bundle = Bundle.load(BIRDS)
    with pytest.raises(cv2.error, match="CV_16FC1"):
        CLASSIC(bundle.file(HALF_FILE), golden_input(bundle))


def test_labels_and_preprocessing_stand_in_every_file():
    bundle = Bundle.load(BIRDS)
    for path in bundle.path.glob("*.onnx"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        said = session.get_modelmeta().custom_metadata_map
        assert json.loads(said["labels"]) == list(bundle.spec.labels)
        assert json.loads(said["preprocess"])["resize"] == bundle.spec.preprocess.resize
        assert said["Image.BitmapPixelFormat"] == "Rgb8"
        assert (said["model"], said["backbone"]) == (bundle.spec.model, bundle.spec.backbone)
        assert not any("/" in value for value in said.values()), "a path of the machine"
