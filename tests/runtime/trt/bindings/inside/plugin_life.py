"""The plugin's whole life through the bindings' own trampolines, with the kernel on the CPU."""

from __future__ import annotations

import ctypes
import gc
import os

import numpy as np
import pytest
import tensorrt as trt

from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.ops import cross_layer_attention
from finedge.runtime.trt.plugin import cross_layer_attention as module
from finedge.runtime.trt.plugin.register import _registered, register
from tests.runtime.trt.bindings.inside.library import library

BATCH, CHANNELS, QUERY_SIDE, KEY_SIDE, SCALE, STREAM = 2, 64, 3, 6, 0.125, 4660
# Weights and result are rounded to float16; measured with every version: 2.98e-4.
TOLERANCE = 1e-3
CREATE = ["register_creator", "getFieldNames", "createPlugin(BUILD)", "getCapabilityInterface"]
DESCRIBE = [
    "getInterfaceInfo",
    "getPluginName",
    "getPluginVersion",
    "getPluginNamespace",
    "getNbOutputs",
    "getOutputDataTypes",
    "getOutputShapes",
]
CONFIGURE = [
    "getFormatCombinationLimit",
    "supportsFormatCombination",
    "configurePlugin",
    "getWorkspaceSize",
    "getNbTactics",
    "getTimingCacheID",
    "getMetadataString",
]
TIME = ["clone", "setTactic"]
SERIALISE = ["getFieldsToSerialize", "the fields are what they were", "createPlugin(RUNTIME)"]
RUN = [
    "attachToContext",
    "setTactic of the engine's plugin",
    "onShapeChange",
    "enqueue",
    "delete",
]
STEPS = CREATE + DESCRIBE + CONFIGURE + TIME + SERIALISE + RUN


class Maps:
    """q, k, v and y on the "device": half, HWC8, 256-byte aligned."""

    def __init__(self):
        rng = np.random.default_rng(0)
        sides = (QUERY_SIDE, KEY_SIDE, KEY_SIDE, QUERY_SIDE)
        self.arrays = [self._room(side) for side in sides]
        for array in self.arrays[:3]:
            array[:] = rng.normal(size=array.shape)
        self.arrays[3][:] = np.nan
        self.workspace = np.zeros(1 << 20, np.uint8)

    @staticmethod
    def _room(side):
        count = BATCH * side * side * CHANNELS
        raw = np.zeros(2 * count + 256, np.uint8)
        start = -raw.ctypes.data % 256
        halves = raw[start : start + 2 * count].view(np.float16)
        return halves.reshape(BATCH, side, side, CHANNELS)

    def error(self):
        """Return the largest difference of y from the reference in float64."""
        q, k, v, y = (np.moveaxis(a.astype(np.float64), -1, 1) for a in self.arrays)
        return np.abs(y - cross_layer_attention(q, k, v, scale=SCALE)).max()


def live(maps):
    """Let the mock lead a plugin through its life; return the steps that passed and failed."""
    steps = {True: [], False: []}

    @ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int)
    def report(step, passed):
        steps[bool(passed)].append(step.decode())
        reuse_memory()

    pointers = [array.ctypes.data for array in (*maps.arrays, maps.workspace)]
    sizes = (BATCH, CHANNELS, QUERY_SIDE, KEY_SIDE, SCALE, STREAM)
    work = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: library.drive(*pointers, *sizes))
    library.on_step(report)
    library.arm(work)
    trt.get_plugin_registry().load_library("drive")
    library.on_step(None)
    library.arm(None)
    return steps[True], steps[False]


def reuse_memory():
    """Overwrite what Python has freed: a collection of fields does not keep them alive."""
    gc.collect()
    return [np.full(1, 7, np.int32) for _ in range(1000)]


@pytest.fixture(autouse=True)
def driver():
    """A current context of the stand-in driver, and an empty registry."""
    path = os.environ["STANDIN_LIBCUDA"]
    cuda, context = ctypes.CDLL(path), ctypes.c_void_p()
    statuses = [cuda.cuInit(0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)]
    assert [*statuses, cuda.cuCtxSetCurrent(context)] == [0, 0, 0]
    yield path
    registry = trt.get_plugin_registry()
    registry.deregister_creator(registry.get_creator(OP.name, str(OP.version), OP.domain))
    _registered.clear()


def test_a_plugin_lives_from_the_nodes_fields_to_its_deletion(driver):
    register(trt, library=driver)
    passed, failed = live(maps := Maps())
    assert failed == []
    assert passed == STEPS
    assert maps.error() < TOLERANCE


def test_the_registry_finds_the_creator_under_its_namespace_only(driver):
    register(trt, library=driver)
    register(trt, library=driver)
    gc.collect()
    registry = trt.get_plugin_registry()
    assert registry.get_creator(OP.name, str(OP.version), "") is None
    assert registry.get_creator(OP.name, str(OP.version), OP.domain).name == OP.name
    assert [creator.name for creator in registry.all_creators] == [OP.name]


def test_an_error_of_ours_is_a_failed_call_and_is_printed(driver, monkeypatch, capfd):
    """The bindings turn an exception into a code. TensorRT then ends the build or the run."""
    monkeypatch.setenv("STANDIN_CC", "7.5")
    module._driver.cache_clear()
    register(trt, library=driver)
    passed, failed = live(Maps())
    module._driver.cache_clear()
    assert failed == ["onShapeChange", "enqueue"]
    assert passed == [step for step in STEPS if step not in failed]
    assert "compute capability 7.5" in capfd.readouterr().err


def test_without_set_tactic_the_life_ends_where_tensorrt_would(driver, monkeypatch):
    """The defect that no other test could see: the base class of the bindings has no default."""
    monkeypatch.delattr(module.CrossLayerAttentionPlugin, "set_tactic")
    register(trt, library=driver)
    passed, failed = live(Maps())
    assert failed[:2] == ["setTactic", "setTactic of the engine's plugin"]
    assert passed[: STEPS.index("setTactic")] == STEPS[: STEPS.index("setTactic")]
