"""What `finedge build` calls, with a builder and a parser of the mock: arguments, and the result.

`compile_engine` and `unsupported` are the real ones. The mock writes down each call that it gets.
"""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import tensorrt as trt

from finedge.errors import BundleError, FinedgeError, UsageError
from finedge.runtime.batch_profile import Profile
from finedge.runtime.cuda.gpu import Gpu
from finedge.runtime.machine.cache import cache_folder
from finedge.runtime.trt.build.builder import _read_layers as read_layers
from finedge.runtime.trt.build.compiler import BuildOrder, compile_engine
from finedge.runtime.trt.build.options import BuildOptions, BuildTarget
from finedge.runtime.trt.build.progress import Bars, Stop
from finedge.runtime.trt.build.support import unsupported
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.library import STRONG_SINCE, TrtLibrary, load_library, numbers
from tests.runtime.trt.bindings.inside.library import library

INPUT = "input frames -1 4 4 3"
WEAK = numbers(trt.__version__) < STRONG_SINCE


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path))


def model():
    """A graph of one node. The parser is the mock's: only the node's name and op matter."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in "xy"]
    node = helper.make_node("Relu", ["x"], ["y"], name="stem")
    return helper.make_model(helper.make_graph([node], "tiny", values[:1], values[1:]))


def trt_library():
    return load_library("tensorrt")


def order(**options):
    chosen = BuildOptions("fp16", profile=Profile(1, 2, 8), workspace_mib=64, **options)
    target = BuildTarget("Pretended", "8.7")
    return BuildOrder("tiny fp16", ("frames",), chosen, trt_library(), target, "Pretended-8.7")


def compiled(text=INPUT, **options):
    """Compile; return the engine and the calls that the mock got, each a list of words."""
    library.set_model(text.encode())
    engine = compile_engine(model(), order(**options))
    return engine, calls()


def calls():
    return [line.split() for line in library.builder_calls().decode().splitlines()]


def test_the_library_is_loaded_by_its_name():
    assert trt_library() == TrtLibrary("tensorrt", "trt", trt, trt.__version__)


def test_every_argument_of_a_build_arrives():
    engine, arrived = compiled()
    size = str(len(model().SerializeToString()))
    strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert arrived == [
        ["createNetworkV2", str(strong)],
        ["parse", size],
        ["setMemoryPoolLimit", str(int(trt.MemoryPoolType.WORKSPACE)), str(64 << 20)],
        ["setProfilingVerbosity", str(int(trt.ProfilingVerbosity.DETAILED))],
        ["clearFlag", str(int(trt.BuilderFlag.TF32))],
        ["setDimensions", "frames", "0", "1,4,4,3"],
        ["setDimensions", "frames", "1", "2,4,4,3"],
        ["setDimensions", "frames", "2", "8,4,4,3"],
        ["createTimingCache", "0"],
        ["setTimingCache", "0"],
    ]
    assert engine.typing == "strong"


def test_what_was_built_is_an_engine_of_those_batches():
    engine, _ = compiled()
    loaded = Engine.load(engine.data, trt=trt, file="built.engine")
    assert (loaded.min_batch, loaded.max_batch) == (1, 8)
    assert loaded.inputs[0].dtype == np.uint8


def test_the_layers_of_an_engine_are_read_with_the_inspector():
    engine, _ = compiled()
    gpu = Gpu("Pretended", "8.7", False, 8, 8192, "12.6")
    report = read_layers(engine, library=trt_library(), target=BuildTarget.of(gpu))
    assert [(layer.name, layer.role) for layer in report.layers] == [("c", "convolution")]


def test_a_fixed_batch_needs_no_profile():
    with pytest.raises(UsageError, match="fixed batch 4"):
        compiled("input frames 4 4 4 3")


@pytest.mark.parametrize("text", ["input other -1 4 4 3", "input frames -1 -1 4 3"])
def test_a_network_with_another_input_is_refused(text):
    with pytest.raises(BundleError):
        compiled(text)


@pytest.mark.skipif(not WEAK, reason="weak typing is for TensorRT before 10.12")
def test_weak_typing_sets_the_flags_of_the_precision():
    _, arrived = compiled(typing="weak")
    assert arrived[0] == ["createNetworkV2", "0"]
    assert ["setFlag", str(int(trt.BuilderFlag.FP16))] in arrived


def test_timings_are_kept_and_those_of_another_machine_are_dropped():
    timings = cache_folder() / "timing" / "Pretended-8.7.cache"
    compiled()
    before = timings.read_bytes()
    _, arrived = compiled()
    assert ["createTimingCache", str(len(before))] in arrived
    assert timings.read_bytes() == before + b"+timings"
    timings.write_bytes(b"another machine's")
    _, arrived = compiled()
    assert arrived.count(["setTimingCache", "0"]) == 2
    assert timings.read_bytes() == b"+timings"


def test_a_build_that_is_interrupted_ends_at_the_next_step(monkeypatch):
    requested, request, steps = threading.Event(), Stop.request, []

    def note(stop):
        request(stop)
        requested.set()

    def step(bars, phase, done):
        steps.append((phase, done))
        os.kill(os.getpid(), signal.SIGINT)
        requested.wait(10)

    monkeypatch.setattr(Stop, "request", note)
    monkeypatch.setattr(Bars, "step", step)
    with pytest.raises(KeyboardInterrupt):
        compiled()
    assert steps == [("Building", 1)]


def test_a_build_that_fails_quotes_the_error():
    with pytest.raises(FinedgeError, match=r"no kernel for node stem"):
        compiled(INPUT + "\nfails")


REFUSED = INPUT + "\nerror 0 stem Relu the type is wrong\nerror -1 frames - of the input"


def test_nodes_that_the_parser_refuses_are_listed():
    library.set_model(REFUSED.encode())
    nodes = unsupported(model(), library=trt_library())
    assert [(node.index, node.name, node.why) for node in nodes] == [
        (0, "stem in Block", "the type is wrong"),
        (-1, "frames", "of the input"),
    ]
    assert calls()[1][0] == "supportsModelV2"


def test_a_build_of_refused_nodes_lists_them():
    with pytest.raises(FinedgeError, match=r"(?s)stem.*the type is wrong"):
        compiled(REFUSED)
