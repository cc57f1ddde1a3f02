"""Every model file opens unchanged in other readers and gives the scores of the file.

The reference is ONNX Runtime without its optimisations. It computes Q/DQ pairs one by one in float,
with the same result on every CPU.
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

from finedge.bundle import FLOAT_FILE, HALF_FILE, Bundle
from finedge.golden import read_golden
from finedge.jetson.serve_config.command import serve_config
from finedge.runtime.openvino.library import core
from finedge.runtime.ort.int8_products import measured_products, open_exactly
from finedge.train import models

BIRDS = Path(__file__).resolve().parents[2] / "examples" / "birds.finedge"
BACKBONE = "efficientnet_lite0"
# The bundles of test_every_model.py; one of them by default, with attention.
NAMES = [pytest.param(n, marks=[] if n == "cnl" else [pytest.mark.slow]) for n in models.names()]

# Largest deviation, as a part of max(1, largest score). Float: only the order of sums may differ;
# over fifty layers of other kernels 2e-5 was measured. Half: each reader computes in float32 or in
# float16.
LIMITS = {"fp32": 1e-3, "projected": 1e-3, "fp16": 2e-2}
# INT8: readers fuse differently, so they round at other places. Their error against float is then
# another sample of the file's own error. 0.7 to 1.5 times was measured (root mean square over eight
# frames), trained or not. OpenCV lost a Sigmoid once: that gave over 3 times.
OWN_ERRORS = 1.5
# Of OpenVINO's float kernels, which run on CPUs without VNNI: 1.65 times was measured with clca_cga
# and 2.2 with levels, whose last BatchNorm enlarges small differences.
OWN_ERRORS_IN_FLOAT = 2.5

Frames = np.ndarray  # [N, ...], as the graph takes them
Answers = dict[str, np.ndarray]  # output name -> scores [N, classes]
Run = Callable[[Frames], Answers]


def nothing(_: Path) -> bool:
    """Tell that no file is computed wrongly."""
    return False


def has_quantized_input(path: Path) -> bool:
    """Tell whether the frame's bytes are the first quantized tensor (`read_bytes` of calib)."""
    graph = onnx.load(path).graph
    head = next(node for node in graph.node if graph.input[0].name in node.input)
    readers = [node.op_type for node in graph.node if head.output[0] in node.input]
    return head.op_type == "Transpose" and readers == ["DequantizeLinear"]


def has_quantized_sigmoid(path: Path) -> bool:
    """Tell whether a Sigmoid follows a convolution, with both outputs quantized."""
    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}

    def before(node: onnx.NodeProto, *kinds: str) -> bool:
        for kind in kinds:
            source = made.get(node.input[0])
            if source is None or source.op_type != kind:
                return False
            node = source
        return True

    chain = ("Sigmoid", "DequantizeLinear", "QuantizeLinear", "Conv")
    return any(before(node, *chain) for node in graph.node if node.op_type == "QuantizeLinear")


@dataclass(frozen=True)
class Reader:
    """Opens a file; what that returns answers one frame [1, ...]."""

    name: str
    open: Callable[[Path], Run]
    # File name -> the error for a file that this reader refuses. If a later version accepts it,
    # this test fails: remove the line.
    refuses: tuple[tuple[str, str], ...] = ()
    # Tells which INT8 files it computes wrongly. If a later version computes them right, the test
    # fails: remove this.
    misreads: Callable[[Path], bool] = nothing
    # How many times the file's own error an INT8 file may be off.
    own_errors: Callable[[], float] = lambda: OWN_ERRORS


def in_onnxruntime(path: Path, *, plainly: bool) -> Run:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    session = (
        onnxruntime.InferenceSession(str(path), settings, providers=providers)
        if plainly
        else open_exactly(str(path))
    )
    names = [o.name for o in session.get_outputs()]
    return lambda frames: dict(
        zip(names, session.run(names, {session.get_inputs()[0].name: frames}), strict=True)
    )


def in_openvino(path: Path) -> Run:
    pytest.importorskip("openvino")
    # Without the hint a CPU with AMX or AVX-512 computes in bfloat16, which is another question.
    how = {"INFERENCE_PRECISION_HINT": "f32"}
    if measured_products() == "saturating":
        # Without VNNI its INT8 kernels clamp sums too: they are 0.76 off with the birds'
        # model.int8.onnx, whose own error is 0.1. There its float kernels show that it reads the
        # file right.
        how["LP_TRANSFORMS_MODE"] = "NO"
    model = core().compile_model(str(path), "CPU", how)
    return lambda frames: {port.get_any_name(): value for port, value in model({0: frames}).items()}


def errors_in_openvino() -> float:
    return OWN_ERRORS_IN_FLOAT if measured_products() == "saturating" else OWN_ERRORS


def in_cv2(path: Path, *, engine: str) -> Run:
    # OpenCV 4 knows one engine and has no name for it.
    chosen = [getattr(cv2.dnn, engine)] if hasattr(cv2.dnn, engine) else []
    net = cv2.dnn.readNetFromONNX(str(path), *chosen)
    names = net.getUnconnectedOutLayersNames()  # not in the order of the file

    def run(frames: Frames) -> Answers:
        net.setInput(frames)
        return dict(zip(names, net.forward(names), strict=True))

    return run


READERS = [
    Reader("onnxruntime", partial(in_onnxruntime, plainly=False)),
    Reader("openvino", in_openvino, own_errors=errors_in_openvino),
    # OpenCV 5.0 computes that Sigmoid in a table of uint8: it gives 209 for 216, and 217 for 247.
    Reader("cv2", partial(in_cv2, engine="ENGINE_AUTO"), misreads=has_quantized_sigmoid),
]
if hasattr(cv2.dnn, "ENGINE_CLASSIC"):
    # This older engine of OpenCV 5 accepts float16 for weights only. OpenCV 4 had no other engine,
    # and converted them to float32. It keeps unsigned tensors as signed ones less 128, but not the
    # input: where the frame's bytes are the first quantized tensor, its error was 4 times the own.
    READERS.append(
        Reader(
            "cv2 classic",
            partial(in_cv2, engine="ENGINE_CLASSIC"),
            refuses=((HALF_FILE, "CV_16FC1"),),
            misreads=has_quantized_input,
        )
    )
reader = pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch):
    # OpenVINO counts its imports and sends the number, except in CI (openvino_telemetry,
    # disable_in_ci).
    monkeypatch.setenv("CI", "true")


def eight_frames(bundle: Bundle) -> Frames:
    """The golden input and its halves exchanged, mirrored and upside down: uint8 [8, H, W, 3]."""
    golden = np.asarray(read_golden(bundle)["input"], np.uint8)
    exchanged = np.roll(golden, golden.shape[1] // 2, axis=1)
    return np.stack(
        [turned for f in (golden, exchanged) for turned in (f, f[:, ::-1], f[::-1], f[::-1, ::-1])]
    )


def answers(run: Run, frames: Frames) -> Answers:
    each = [run(np.ascontiguousarray(frame[None])) for frame in frames]
    return {name: np.concatenate([scores[name] for scores in each]) for name in each[0]}


def plain(path: Path, frames: Frames) -> Answers:
    return answers(in_onnxruntime(path, plainly=True), frames)


def check(found: Answers, expected: Answers, *, limit: float) -> None:
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        worst = float(np.abs(found[name] - scores).max())
        assert worst <= limit * max(1.0, float(np.abs(scores).max())), (name, worst)


def check_int8(found: Answers, expected: Answers, *, in_float: Answers, own_errors: float) -> None:
    assert found.keys() == expected.keys()
    for name, scores in in_float.items():
        error, own = (
            float(np.sqrt(np.mean((answer[name] - scores) ** 2))) for answer in (found, expected)
        )
        assert error <= own_errors * own, (name, error, own)


def is_whole_model(name: str) -> bool:
    """Tell whether a file is a model that takes frames: the segments of one take maps."""
    return name.endswith(".onnx") and ".seg" not in name


def check_int8_file(path: Path, frames: Frames, *, reader: Reader, in_float: Answers) -> None:
    found, expected = answers(reader.open(path), frames), plain(path, frames)
    compare = partial(
        check_int8, found, expected, in_float=in_float, own_errors=reader.own_errors()
    )
    if reader.misreads(path):
        with pytest.raises(AssertionError, match=next(iter(in_float))):  # the main output
            compare()
    else:
        compare()


def check_bundle(bundle: Bundle, *, reader: Reader) -> None:
    frames, refuses = eight_frames(bundle), dict(reader.refuses)
    in_float = plain(bundle.file(FLOAT_FILE), frames)
    for path in (bundle.file(name) for name in bundle.files if is_whole_model(name)):
        kind = path.name.split(".")[1]
        if path.name in refuses:
            with pytest.raises(cv2.error, match=refuses[path.name]):
                answers(reader.open(path), frames[:1])
        elif kind == "int8":
            check_int8_file(path, frames, reader=reader, in_float=in_float)
        else:
            check(
                answers(reader.open(path), frames[:1]), plain(path, frames[:1]), limit=LIMITS[kind]
            )


@pytest.fixture(scope="module")
def framed(untrained, tmp_path_factory):
    from finedge.export.command import export

    path = tmp_path_factory.mktemp("framed") / "framed.finedge"
    export(untrained.run("cnl", BACKBONE).job.path, out=path, frame="72x96")
    return Bundle.load(path)


@reader
def test_every_file_of_the_bundle_that_ships_opens(reader):
    check_bundle(Bundle.load(BIRDS), reader=reader)


@reader  # varies first: each model is made once
@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_every_model_opens(untrained, name, reader):
    check_bundle(untrained.bundle(name, BACKBONE), reader=reader)


@reader
def test_a_graph_that_takes_whole_frames_opens(framed, reader):
    check_bundle(framed, reader=reader)


@reader
def test_what_is_written_for_triton_opens(tmp_path, reader):
    path, frames = written_for("triton", tmp_path, variant="int8"), eight_frames(Bundle.load(BIRDS))
    in_float = plain(Bundle.load(BIRDS).file(FLOAT_FILE), frames)
    check_int8_file(path, frames, reader=reader, in_float=in_float)


@reader
def test_what_is_written_for_deepstream_opens(tmp_path, reader):
    path = written_for("deepstream", tmp_path, variant="fp32")
    planes = eight_frames(Bundle.load(BIRDS))[:1].transpose(0, 3, 1, 2).astype(np.float32)
    check(answers(reader.open(path), planes), plain(path, planes), limit=LIMITS["fp32"])


def written_for(target: str, folder: Path, *, variant: str) -> Path:
    served = serve_config(target, BIRDS, out=folder / "out", variant=variant)
    # Triton's other model serves the bundle whole, with all of its files.
    graphs = [f for f in served["files"] if f.endswith(".onnx") and ".finedge/" not in f]
    (path,) = [folder / "out" / f for f in graphs]
    return path


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
