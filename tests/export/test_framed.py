"""`export --frame`: the graph takes whole frames.

PyTorch on the crops of the graph gives the same answers.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from finedge.bundle import FLOAT_FILE, HALF_FILE, Bundle
from finedge.errors import BundleError, GateError, UsageError
from finedge.export.cost import count_cost
from finedge.export.framed import frame_size, framed_files, framed_spec
from finedge.export.onnx_files import onnx_files
from finedge.export.parity import check_parity, expected_of
from finedge.export.reference import FramedReference, check_crops
from finedge.export.to_onnx import FramesToOutputs
from finedge.golden import synthetic_frame
from finedge.runtime.agreement import FP16_LIMIT
from finedge.runtime.explain.explainer import Explainer
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from tests.small_models import small_export, small_model

SIZE = (90, 160)


@pytest.fixture(scope="module")
def frames():
    return np.stack(
        [
            synthetic_frame()[y : y + SIZE[0], x : x + SIZE[1]]
            for y, x in ((0, 0), (100, 120), (200, 300))
        ]
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle that takes whole frames, its files, its reference, and the spec of the crops."""
    choice = {"name": "plain", "backbone": "resnet18"}
    (model, spec), (content, taps) = small_model(**choice), small_export(**choice)
    graph = ir.from_proto(onnx.ModelProto.FromString(content))
    framed = framed_spec(spec, SIZE)
    files = framed_files(onnx_files(graph, count_cost(model, spec, graph), taps), framed.preprocess)
    contents = {name: proto.SerializeToString() for name, proto in files.items()}
    bundle = Bundle.create(
        tmp_path_factory.mktemp("framed") / "f.finedge",
        framed,
        files=contents,
        taps=taps,
        views=model.views,
        provenance={},
    )
    return (
        bundle,
        files,
        FramedReference(FramesToOutputs(model, spec.preprocess).eval(), files[FLOAT_FILE]),
        spec,
    )


def test_whole_frames_go_in_and_every_file_answers_as_pytorch(made, frames):
    bundle, files, reference, spec = made
    assert check_crops(reference, frames, preprocess=spec.preprocess) <= 1
    check_parity(files[FLOAT_FILE], expected_of(reference, frames), frames)
    check_parity(files[HALF_FILE], expected_of(reference, frames), frames, tolerance=FP16_LIMIT)
    assert OnnxRuntimeBackend().open(Bundle.load(bundle.path), variant="fp32")(frames)[
        "logits"
    ].shape == (3, 5)


def test_a_crop_that_is_another_one_is_refused(made, frames):
    _, _, reference, spec = made
    with pytest.raises(GateError, match="grey levels"):
        check_crops(Flipped(reference), frames, preprocess=spec.preprocess)


class Flipped:
    """A graph that turns its crops upside down."""

    def __init__(self, reference):
        self.reference = reference

    def crops(self, frames):
        return self.reference.crops(frames)[:, ::-1]


def test_explain_refuses_what_it_would_draw_in_the_wrong_place(made):
    with pytest.raises(BundleError, match="whole frames"):
        Explainer(made[0])


@pytest.mark.parametrize("text", ["720", "720x", "0x10", "720x1280x3", "hd"])
def test_a_size_that_is_none_is_a_usage_error(text):
    with pytest.raises(UsageError, match="frame"):
        frame_size(text)


def test_the_size_is_height_by_width():
    assert frame_size("720x1280") == (720, 1280)
