"""What the real bindings do where TensorRT fails, and the typed errors that we make of it."""

from __future__ import annotations

import gc

import pytest
import tensorrt as trt

from finedge.errors import SystemProblem
from finedge.runtime.trt.context import INFER_SHAPES_SINCE
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.factory import create
from finedge.runtime.trt.library import numbers
from tests.runtime.trt.bindings.inside.library import AFTER_AN_ERROR, GOOD, NOTHING, library
from tests.runtime.trt.bindings.inside.mock_engine import bench, engine_bytes
from tests.runtime.trt.conftest import frames, right


@pytest.fixture
def creation():
    """A function that says how the next objects are created."""
    yield library.create
    library.create(GOOD)


def test_the_bindings_raise_a_type_error_for_a_null_factory(creation):
    creation(NOTHING)
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))


@pytest.mark.parametrize("factory", [trt.Runtime, trt.Builder])
@pytest.mark.parametrize("how", [NOTHING, AFTER_AN_ERROR], ids=["null", "error 35 was logged"])
def test_an_object_that_cuda_cannot_serve_is_refused_at_once(creation, factory, how):
    """The mock ends the process where such an object is used or destroyed."""
    creation(how)
    with pytest.raises(SystemProblem, match="error: 35") as caught:
        create(factory, trt=trt)
    assert trt.__version__ in caught.value.what
    gc.collect()


def test_an_engine_is_not_read_with_a_driver_that_is_too_old(creation):
    creation(AFTER_AN_ERROR)
    with pytest.raises(SystemProblem, match="error: 35"):
        Engine.load(engine_bytes(), trt=trt, file="x.engine")


def test_a_null_parser_is_refused(creation):
    network = create(trt.Builder, trt=trt).create_network(1)
    creation(NOTHING)
    with pytest.raises(SystemProblem, match="cannot create its OnnxParser"):
        create(trt.OnnxParser, network, trt=trt)


@pytest.mark.parametrize("data", [b"", b"garbage", engine_bytes()[:5]])
def test_bytes_that_are_no_engine_are_refused_with_what_was_logged(data):
    with pytest.raises(SystemProblem, match=r"will not load bad\.engine: these bytes are no"):
        Engine.load(data, trt=trt, file="bad.engine")


def test_none_from_deserialise_quotes_tensorrt():
    data = engine_bytes(refuse=["deserialize_cuda_engine"], log="incompatible device")
    version = trt.__version__.replace(".", r"\.")
    with pytest.raises(SystemProblem, match=rf"{version} will not load x\.engine: incompatible"):
        Engine.load(data, trt=trt, file="x.engine")


def test_a_negative_code_of_infer_shapes_is_a_typed_error_or_is_never_met():
    """The bindings raise RuntimeError there; 10.3 and 10.7 without the GIL, which is a crash."""
    session = (rig := bench(refuse=["infer_shapes_with_a_negative_code"])).open()
    if numbers(trt.__version__) < INFER_SHAPES_SINCE:
        assert right(session(frames(1)), frames(1))
    else:
        with pytest.raises(SystemProblem, match="infer_shapes"):
            session(frames(1))
    session.close()
    assert rig.cuda.live() == []
