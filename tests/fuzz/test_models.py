"""Model files of others: opening and running one ends with an answer or a FinedgeError.

Their bytes may be anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from finedge.bundle import FLOAT_FILE, MANIFEST, Bundle
from finedge.errors import FinedgeError
from finedge.graph.folding import fold
from finedge.graph.onnx_file import read_model
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.spec import Input, Preprocess, Spec
from tests.runtime.trt.build.conftest import attention_model

SIDE, CLASSES = 32, 6
SPEC = Spec("tiny", "none", tuple("abcdef"), Preprocess(SIDE, SIDE), Input(SIDE, SIDE))
FRAME = np.zeros((1, SIDE, SIDE, 3), np.uint8)
VALID = attention_model().SerializeToString()
ROOM = 4 << 30
BACKEND = OnnxRuntimeBackend(SessionOptions(threads=1))


def try_all(folder: Path, content: bytes) -> None:
    """Put a model into the bundle, its digest right, and do what a user does with it."""
    (folder / FLOAT_FILE).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {FLOAT_FILE: hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    bundle = Bundle.load(folder)
    for use in (run, folded):
        with contextlib.suppress(FinedgeError):
            use(bundle)


def run(bundle: Bundle) -> None:
    answer = BACKEND.open(bundle, variant="fp32")(FRAME)["logits"]
    assert (answer.shape, answer.dtype) == ((1, CLASSES), np.float32)


def folded(bundle: Bundle) -> None:
    fold(read_model(bundle.file(FLOAT_FILE)), CROSS_LAYER_ATTENTION)


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Refuse this process more than ROOM bytes on top of what it has.

    Shape inference does not see every size: a changed padding may make an activation of tens of
    gigabytes. Where memory is bounded, that is a typed error; else the system kills the process.
    """
    resource = pytest.importorskip("resource")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(inputs: st.SearchStrategy[bytes], examples: int) -> None:
    with tempfile.TemporaryDirectory() as folder, bounded_memory():
        path = Bundle.create(
            Path(folder) / "b.finedge", SPEC, files={FLOAT_FILE: VALID}, provenance={}
        ).path

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def check(content: bytes) -> None:
            try_all(path, content)

        check()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The valid file with a few bytes changed, cut out or put in.

    Most changes are in its structure, which stands at both ends.
    """
    content = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content) - 1))
        how = draw(st.sampled_from(("change", "cut", "insert")))
        if how == "change":
            content[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del content[at : at + draw(st.integers(1, 16))]
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(content)


SIZES = st.one_of(st.integers(-3, 8), st.sampled_from((10**10, 2**31, 2**62, -(2**63))))


def odd_size(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    value = draw(st.sampled_from([*model.graph.input, *model.graph.output]))
    dims = list(value.type.tensor_type.shape.dim)
    if dims:  # the output of `odd_allocation` has none
        draw(st.sampled_from(dims)).dim_value = draw(SIZES)


def odd_type(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    value = draw(st.sampled_from([*model.graph.input, *model.graph.output]))
    value.type.tensor_type.elem_type = draw(st.integers(0, 30))


def odd_constant(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    tensor = draw(st.sampled_from(list(model.graph.initializer)))
    del tensor.dims[:]
    tensor.dims.extend(draw(st.lists(SIZES, max_size=4)))


def odd_wire(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    names = sorted({name for node in model.graph.node for name in (*node.input, *node.output)})
    node = draw(st.sampled_from([n for n in model.graph.node if n.input]))
    node.input[draw(st.integers(0, len(node.input) - 1))] = draw(
        st.sampled_from([*names, "", "nowhere"])
    )


def odd_op(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    ops = (
        "Shape",
        "Identity",
        "Softmax",
        "Add",
        "NoSuchOp",
        "If",
        "Loop",
        "Resize",
        "Twice",
        "CrossLayerAttention",
    )
    node = draw(st.sampled_from(list(model.graph.node)))
    node.op_type, node.domain = (
        draw(st.sampled_from(ops)),
        draw(st.sampled_from(("", "finedge", "ai.onnx.ml", "x"))),
    )


def odd_function(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    function = draw(st.sampled_from(list(model.functions)))
    node = draw(st.sampled_from(list(function.node)))
    node.op_type = draw(st.sampled_from(("Twice", "CrossLayerAttention", "Constant", "Identity")))
    node.domain = draw(st.sampled_from(("", "finedge")))


def odd_allocation(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    sizes = draw(st.lists(SIZES, min_size=1, max_size=3))
    model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), "sizes"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["sizes"], ["made"]))
    model.graph.output.append(helper.make_tensor_value_info("made", TensorProto.FLOAT, None))


def odd_version(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    model.ir_version = draw(st.sampled_from((0, 3, 8, 99, -1)))
    model.opset_import[0].version = draw(st.sampled_from((-1, 0, 1, 7, 20, 999)))


def outside(model: onnx.ModelProto, draw: st.DrawFn) -> None:
    tensor = draw(st.sampled_from(list(model.graph.initializer)))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(
        key="location", value=draw(st.sampled_from(("/etc/hostname", "../x", "manifest.json", "")))
    )


ODD: tuple[Callable[[onnx.ModelProto, st.DrawFn], None], ...] = (
    odd_size,
    odd_type,
    odd_constant,
    odd_wire,
    odd_op,
    odd_function,
    odd_allocation,
    odd_version,
    outside,
)


@st.composite
def structured(draw: st.DrawFn) -> bytes:
    model = onnx.ModelProto.FromString(VALID)
    for change in draw(st.lists(st.sampled_from(ODD), min_size=1, max_size=3)):
        change(model, draw)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("examples", [60, pytest.param(3_000, marks=pytest.mark.slow)])
def test_no_mutated_model_raises_an_untyped_error(examples: int) -> None:
    fuzz(st.one_of(mutated(), st.binary(max_size=200)), examples)


@pytest.mark.parametrize("examples", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_model_of_another_structure_raises_an_untyped_error(examples: int) -> None:
    fuzz(structured(), examples)
