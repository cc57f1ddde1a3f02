"""A bundle with an attention function, two outputs and odd labels, made without torch.

It has every variant and a confidence.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.bundle import CPU_FILE, FLOAT_FILE, GOLDEN, HALF_FILE, PORTABLE_FILE, Bundle
from finedge.confidence import KEY, STAGE
from finedge.golden import pack, synthetic_frame
from finedge.graph.edit import with_unique_names
from finedge.graph.float16 import convert_float16
from finedge.graph.keep_float32 import keep_float32
from finedge.preprocess import preprocess
from finedge.spec import Input, Output, Preprocess, Spec
from tests.runtime.trt.build.conftest import CLASSES, OPSETS, SIZE, attention_model, quantized

LABELS = ("Øre, small", 'the "red" one', "a;b", "back\\slash", "two\nlines", "f")
OUTPUTS = (Output(), Output("local", "log_prob", "local"))
SPEC = Spec("tiny", "none", LABELS, Preprocess(resize=36, crop=SIZE), Input(SIZE, SIZE), OUTPUTS)
CONFIDENCE = {
    v: {"temperature": t, "reject": 0.25} for v, t in (("fp32", 1.7), ("fp16", 1.7), ("int8", 0.6))
}


def two_outputs(model):
    model.graph.node.append(helper.make_node("LogSoftmax", ["logits"], ["local"], "local"))
    model.graph.output.append(
        helper.make_tensor_value_info("local", TensorProto.FLOAT, ["batch", CLASSES])
    )
    return model


@pytest.fixture
def make_bundle(tmp_path):
    """Make a bundle: `make_bundle(spec, provenance={})`."""

    def make(spec=SPEC, *, name="my birds.v2", provenance=None, change=lambda model: model):
        model = change(two_outputs(attention_model()))
        named = with_unique_names(model)
        integer = quantized(model)
        models = {
            FLOAT_FILE: model,
            HALF_FILE: convert_float16(named, keep=keep_float32(named.graph)),
            PORTABLE_FILE: integer,
            CPU_FILE: integer,
        }
        pixels = preprocess(synthetic_frame(), spec.preprocess)
        files = {n: m.SerializeToString() for n, m in models.items()} | {
            GOLDEN: pack({"input": pixels})
        }
        record = {STAGE: {KEY: CONFIDENCE}} if provenance is None else provenance
        return Bundle.create(tmp_path / f"{name}.finedge", spec, files=files, provenance=record)

    return make


@pytest.fixture
def bundle(make_bundle):
    return make_bundle()


@pytest.fixture
def framed(make_bundle):
    """A bundle whose graph cuts its own crop out of whole frames: rows first, planes later."""
    frame = (SIZE + 8, SIZE + 16)

    def cut(model):
        graph = model.graph
        cast, transpose = (
            next(n for n in graph.node if n.name == name) for name in ("cast", "planes")
        )
        graph.node.remove(transpose)
        bounds = {"begin": [4, 8], "end": [4 + SIZE, 8 + SIZE], "axes": [1, 2]}
        graph.initializer.extend(
            numpy_helper.from_array(np.array(v, np.int64), k) for k, v in bounds.items()
        )
        graph.node.insert(1, helper.make_node("Slice", [cast.output[0], *bounds], ["crop"], "crop"))
        graph.node.insert(
            2, helper.make_node("Transpose", ["crop"], ["planes"], "turn", perm=[0, 3, 1, 2])
        )
        dims = graph.input[0].type.tensor_type.shape.dim
        dims[1].dim_value, dims[2].dim_value = frame
        onnx.checker.check_model(model)
        return model

    assert OPSETS
    return make_bundle(
        replace(SPEC, preprocess=replace(SPEC.preprocess, frame=frame), input=Input(*frame)),
        change=cut,
    )
