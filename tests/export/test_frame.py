"""Whole frames in: the graph crops as `preprocess` does, in float32 and float16.

TensorRT for RTX takes it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.errors import FinedgeError, UsageError
from finedge.export.onnx_files import float16_file
from finedge.export.passes.frame import accept_frames
from finedge.preprocess import preprocess
from finedge.schema import decode
from finedge.spec import Method, Preprocess

GREY_LEVELS = 1
TWICE = 12  # grey levels; a photo in a frame is resampled twice, noise is the worst of photos
SIDE, HEIGHT, WIDTH = 48, 90, 160


def planes_model():
    """The head that to_onnx writes, and one layer; the planes of the crop are an output."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["conv"], "conv"),
        helper.make_node("GlobalAveragePool", ["conv"], ["logits"], "pool"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("planes", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, 1, 1]),
        ],
        [numpy_helper.from_array(rng.normal(0, 0.01, (4, 3, 3, 3)).astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def frames(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, *size, 3), np.uint8)


def run(model, batch):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"frames": batch})


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("rule", ["short-side", "squash"])
@pytest.mark.parametrize("method", get_args(Method))
def test_the_graph_crops_a_frame_as_preprocess_does(method, rule, half):
    how = Preprocess(54, SIDE, method, rule)
    framed = accept_frames(planes_model(), how, height=HEIGHT, width=WIDTH)
    batch = frames(HEIGHT, WIDTH)
    crops = np.stack([preprocess(f, how) for f in batch])
    planes, logits = run(float16_file(framed) if half else framed, batch)
    assert np.abs(planes.transpose(0, 2, 3, 1) - crops).max() <= GREY_LEVELS
    np.testing.assert_allclose(logits, run(planes_model(), crops)[1], atol=0.02)


def test_only_the_head_and_the_input_change():
    model = planes_model()
    before = model.SerializeToString()
    framed = accept_frames(model, Preprocess(54, SIDE), height=HEIGHT, width=WIDTH)
    assert model.SerializeToString() == before
    shape = [d.dim_param or d.dim_value for d in framed.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", HEIGHT, WIDTH, 3]
    assert framed.graph.node[-2:] == model.graph.node[-2:]
    assert [n.op_type for n in framed.graph.node].count("MatMul") == 2
    stored = {t.name: t.dims for t in framed.graph.initializer}
    assert stored["frame/columns"][0] < WIDTH * 0.6, (
        "what lies outside the crop is not computed with"
    )


def test_another_head_is_refused():
    model = planes_model()
    model.graph.node[1].op_type = "Identity"
    with pytest.raises(FinedgeError, match="Identity"):
        accept_frames(model, Preprocess(54, SIDE), height=HEIGHT, width=WIDTH)


@pytest.mark.parametrize("rule", ["short-side", "squash"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (300, 200), (61, 97), (90, 90)])
def test_preprocess_places_other_pictures_where_the_graph_crops(size, rule):
    crops = Preprocess(54, SIDE, "pillow-bilinear", rule)
    how = replace(crops, frame=(HEIGHT, WIDTH))
    smooth = np.asarray(
        preprocess(frames(9, 7)[0], Preprocess(256, 256, "pillow-bicubic", "squash"))
    )
    picture = preprocess(smooth, Preprocess(1, 1, rule="squash", frame=size))
    placed = preprocess(picture, how)
    assert placed.shape == (HEIGHT, WIDTH, 3)
    assert placed.flags.c_contiguous
    if size == (HEIGHT, WIDTH):
        assert placed is picture or np.array_equal(placed, picture)
    planes, _ = run(accept_frames(planes_model(), how, height=HEIGHT, width=WIDTH), placed[None])
    assert np.abs(planes[0].transpose(1, 2, 0) - preprocess(picture, crops)).max() <= TWICE


def test_the_spec_keeps_the_frame_and_old_specs_have_none():
    how = Preprocess(54, SIDE, frame=(HEIGHT, WIDTH))
    data = {**vars(how), "frame": [HEIGHT, WIDTH]}
    assert decode(Preprocess, data) == how
    del data["frame"]
    assert decode(Preprocess, data).frame is None
    assert f"{WIDTH} x {HEIGHT}" in how.describe()
    with pytest.raises(UsageError):
        Preprocess(frame=(0, 5))
