"""Early exit with an engine for each segment, on a fake GPU whose engines answer as ONNX Runtime.

It shows the calls and what goes where. No engine was run on hardware.
"""

import numpy as np
import pytest

from finedge.bundle import FLOAT_FILE, GOLDEN
from finedge.errors import BundleError, GateError, UsageError
from finedge.golden import pack
from finedge.runtime.backend import SessionOptions
from finedge.runtime.early_exit.open import open_early_exit
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.trt.backend import TensorRtBackend
from finedge.runtime.trt.engine import EngineTensor
from finedge.runtime.trt.segments import check_chain
from tests.runtime.conftest import SIZE
from tests.runtime.early_exit.conftest import (  # noqa: F401 - pytest takes fixtures by name
    HEAD,
    MAIN,
    TWO_HEADS,
    batch,
    make_early_bundle,
    whole_files,
)
from tests.runtime.trt.fakes import FakeModel

ORT = OnnxRuntimeBackend(SessionOptions(threads=1))
FLOAT = np.dtype(np.float32)
FRAMES = {"frames": (np.dtype(np.uint8), (SIZE, SIZE, 3))}
CROSSING = {HEAD: (FLOAT, (6,)), "relu": (FLOAT, (8, SIZE, SIZE))}


@pytest.fixture
def early_bundle(device, make_early_bundle):  # noqa: F811
    """Make a bundle in segments with a golden frame, whose fake engines answer as its files."""

    def make(*, threshold):
        bare = make_early_bundle(threshold=threshold)
        pixels = np.full((SIZE, SIZE, 3), 99, np.uint8)
        outputs = ORT.open(bare, variant="fp32")(pixels[None])
        answers = {f"{FLOAT_FILE}/{name}": scores for name, scores in outputs.items()}
        golden = pack({"input": pixels, **answers})
        bundle = bare.extend("export", {GOLDEN: golden}, bare.provenance["export"])
        (first, second), _ = ORT.open_segments(bundle, variant="fp32")
        device.library.trt.segments = {
            b"fp32/0": FakeModel(
                lambda frames: first({"frames": frames}), ("frames",), {**FRAMES, **CROSSING}
            ),
            b"fp32/1": FakeModel(
                lambda *arrays: second(dict(zip(second.inputs, arrays, strict=True))),
                second.inputs,
                {**CROSSING, MAIN: (FLOAT, (6,))},
            ),
        }
        return bundle

    return make


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5])
def test_engines_answer_and_exit_as_onnx_runtime_does(
    device,
    early_bundle,
    batch,  # noqa: F811
    threshold,
):
    bundle = early_bundle(threshold=threshold)
    expected = open_early_exit(ORT, bundle, variant="fp32")
    session = open_early_exit(TensorRtBackend(), bundle, variant="fp32")
    # 12 frames: more than the engines' largest batch of 4, in parts.
    np.testing.assert_allclose(session(batch)[MAIN], expected(batch)[MAIN], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(session.taken, expected.taken)
    assert [options.segment for options in device.built] == [0, 1]
    session.close()
    assert device.cuda.live() == []


def test_the_rest_does_not_run_where_all_frames_leave(device, early_bundle, batch):  # noqa: F811
    session = open_early_exit(TensorRtBackend(), early_bundle(threshold=0.0), variant="fp32")
    device.library.trt.segments.clear()
    session._segments[1].close()  # a run would raise
    session(batch)
    assert session.taken.tolist() == [0] * len(batch)
    with pytest.raises(UsageError, match="closed"):
        session._segments[1](dict.fromkeys((HEAD, "relu"), batch))


def test_the_golden_frame_is_replayed_once_through_all_segments(device, early_bundle):
    bundle = early_bundle(threshold=None)
    for launches in (2, 0):
        device.cuda.calls.clear()
        open_early_exit(TensorRtBackend(), bundle, variant="fp32").close()
        assert device.cuda.names().count("cudaGraphLaunch") == launches
    assert len(device.built) == 2


def test_segments_that_answer_otherwise_are_not_used(device, early_bundle):
    bundle = early_bundle(threshold=None)
    models = device.library.trt.segments
    wrong = models[b"fp32/1"]
    models[b"fp32/1"] = FakeModel(
        lambda *arrays: {MAIN: wrong.answer(*arrays)[MAIN] + 50}, wrong.inputs, wrong.tensors
    )
    with pytest.raises(GateError, match="answers the golden frame otherwise"):
        open_early_exit(TensorRtBackend(), bundle, variant="fp32")
    assert device.cuda.live() == []


class Tensors:
    """The inputs and outputs of an engine."""

    def __init__(self, inputs, outputs):
        self.inputs, self.outputs = inputs, outputs


def test_engines_that_do_not_follow_one_another_are_refused():
    def tensors(named):
        return tuple(EngineTensor(name, *facts) for name, facts in named.items())

    main = {MAIN: (FLOAT, (6,))}
    half = {**CROSSING, "relu": (np.dtype(np.float16), CROSSING["relu"][1])}
    first = Tensors(tensors(FRAMES), tensors(CROSSING))
    check = {"spec": TWO_HEADS, "files": ("a.engine", "b.engine")}
    check_chain([first, Tensors(tensors(CROSSING), tensors(main))], **check)
    with pytest.raises(BundleError, match=r"b\.engine reads relu: float16"):
        check_chain([first, Tensors(tensors(half), tensors(main))], **check)
    with pytest.raises(BundleError, match="the segments write no logits"):
        check_chain([first, Tensors(tensors(CROSSING), ())], **check)
