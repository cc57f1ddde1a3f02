"""The plugin as TensorRT calls it, with descriptors of TensorRT for RTX.

A stand-in for the CUDA driver runs the kernel on the CPU.
"""

import ctypes
import gc
import importlib.util
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from finedge.errors import SystemProblem, UsageError
from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.ops import cross_layer_attention
from finedge.runtime.trt.plugin import cross_layer_attention as plugin_module
from finedge.runtime.trt.plugin.attributes import AttentionAttributes
from finedge.runtime.trt.plugin.cross_layer_attention import K, V
from finedge.runtime.trt.plugin.launch import (
    HALF,
    INT8,
    MapLayout,
    is_readable,
    plan,
    workspace_bound,
)
from finedge.runtime.trt.plugin.register import creator

trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install 'finedge[rtx]'")

# Weights and result are rounded to float16, 2**-11 of their size each. Measured: at most 5e-4 where
# the result is of size 1.
TOLERANCE = 1e-3
STEP = 0.03
STREAM = 4660


@pytest.fixture
def library(standin_libcuda, monkeypatch, tmp_path):
    """The stand-in with a current context, and its log of calls."""
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "calls"))
    cuda, context = ctypes.CDLL(str(standin_libcuda)), ctypes.c_void_p()
    assert [
        cuda.cuInit(0),
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
        cuda.cuCtxSetCurrent(context),
    ] == [0, 0, 0]
    plugin_module._driver.cache_clear()
    (tmp_path / "calls").unlink()
    return str(standin_libcuda)


@pytest.fixture
def calls(tmp_path):
    """Return a function that gives the driver calls since the last time it was asked."""

    def since():
        path = tmp_path / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    return since


def fields(**values):
    kinds = {
        int: (np.int32, trt.PluginFieldType.INT32),
        float: (np.float32, trt.PluginFieldType.FLOAT32),
    }
    made = [(name, value, *kinds[type(value)]) for name, value in values.items()]
    return [
        trt.PluginField(name, np.array([value], dtype), kind) for name, value, dtype, kind in made
    ]


def make_plugin(library="libcuda.so.1", **values):
    kept = fields(**values)  # a collection does not keep its fields alive
    return creator(trt, library=library).create_plugin(
        "attend", trt.PluginFieldCollection(kept), trt.TensorRTPhase.RUNTIME
    )


def descriptor(shape, form, kind):
    desc = trt.PluginTensorDesc()
    desc.dims, desc.format = trt.Dims(shape), getattr(trt.TensorFormat, form)
    desc.type = trt.DataType.INT8 if kind == INT8 else trt.DataType.HALF
    return desc


class Device:
    """A map in memory, 256-byte aligned; what is padding holds NaN or 127."""

    def __init__(self, shape, form, kind):
        self.shape, self.desc = shape, descriptor(shape, form, kind)
        b, c, h, w = shape
        layout = MapLayout.of(form, kind=kind, channels=c, positions=h * w)
        i, j, t = np.meshgrid(range(b), range(c), range(h * w), indexing="ij")
        self.address = (
            i * layout.batch + t * layout.token + j // 32 * layout.group + j % 32 * layout.channel
        )
        dtype, junk = (np.int8, 127) if kind == INT8 else (np.float16, np.nan)
        raw = np.zeros(b * layout.batch * np.dtype(dtype).itemsize + 256, np.uint8)
        start = -raw.ctypes.data % 256
        self.memory = raw[start : start + b * layout.batch * np.dtype(dtype).itemsize].view(dtype)
        self.memory[:] = junk

    def write(self, values):
        self.memory[self.address] = values.reshape(self.address.shape)
        return self

    def read(self):
        return self.memory[self.address].reshape(self.shape).astype(np.float64)

    @property
    def pointer(self):
        return self.memory.ctypes.data


class Run:
    """One attention problem on the device: `enqueue` as TensorRT would call it."""

    def __init__(
        self,
        library,
        *,
        forms=("HWC8",) * 4,
        kinds=(HALF,) * 3,
        d=64,
        dv=64,
        batch=1,
        grids=((3, 5), (6, 10)),
        shared=False,
    ):
        rng = np.random.default_rng(0)
        scales = {f"{n}_scale": STEP for n, kind in zip("qkv", kinds, strict=True) if kind == INT8}
        self.plugin = make_plugin(library, scale=1 / math.sqrt(d), shared=int(shared), **scales)
        sizes = [(batch, d, *grids[0]), (batch, d, *grids[1]), (batch, dv, *grids[1])]
        self.inputs, self.values = [], []
        for size, form, kind in zip(sizes, forms, kinds, strict=False):
            stored = (
                np.clip(rng.normal(0, 1 / STEP, size), -127, 127).astype(np.int8)
                if kind == INT8
                else rng.normal(size=size).astype(np.float16)
            )
            self.inputs.append(Device(size, form, kind).write(stored))
            self.values.append(stored.astype(np.float64) * (STEP if kind == INT8 else 1))
        if shared:
            self.inputs[2], self.values[2] = self.inputs[1], self.values[1]
        self.output = Device((batch, dv, *grids[0]), forms[3], HALF)
        queries, keys = (math.prod(grid) for grid in grids)
        size = workspace_bound(queries=queries, keys=keys, d=d, dv=dv, shared=shared, batch=batch)
        self.workspace = np.full(size // 4 + 1, np.nan, np.float32)
        self.descs = [m.desc for m in self.inputs], [self.output.desc]
        self.expected = cross_layer_attention(*self.values, scale=1 / math.sqrt(d))

    def prepare(self):
        self.plugin.on_shape_change(*self.descs)

    def enqueue(self):
        pointers = [m.pointer for m in self.inputs], [self.output.pointer]
        self.plugin.enqueue(*self.descs, *pointers, self.workspace.ctypes.data, STREAM)
        return self.output.read()


PROBLEMS = {
    "hwc8": {"d": 20, "dv": 12},
    "hwc": {"forms": ("HWC",) * 4, "d": 40, "dv": 24},
    "linear": {"forms": ("LINEAR",) * 4, "d": 20, "dv": 12},
    "mixed formats": {"forms": ("HWC8", "LINEAR", "HWC8", "LINEAR"), "d": 65, "dv": 96},
    "int8": {"forms": ("CHW32", "CHW32", "CHW32", "HWC8"), "kinds": (INT8,) * 3, "d": 40, "dv": 64},
    "int8 linear": {"forms": ("LINEAR",) * 4, "kinds": (INT8,) * 3},
    "int8 keys and values": {
        "forms": ("HWC8", "CHW32", "CHW32", "HWC8"),
        "kinds": (HALF, INT8, INT8),
    },
    "shared 512": {"d": 512, "dv": 512, "shared": True},
    "shared int8": {
        "d": 320,
        "dv": 320,
        "shared": True,
        "forms": ("HWC8", "CHW32", "CHW32", "HWC8"),
        "kinds": (HALF, INT8, INT8),
    },
    "shared narrow": {"d": 64, "dv": 64, "shared": True},
    "split": {"grids": ((2, 2), (28, 28)), "batch": 2},
    "split linear": {"grids": ((2, 2), (28, 28)), "forms": ("LINEAR",) * 4, "dv": 12},
    "one position": {"grids": ((1, 1), (1, 1)), "batch": 2},
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_enqueue_computes_the_reference(library, problem):
    run = Run(library, **problem)
    run.prepare()
    np.testing.assert_allclose(
        run.enqueue(), run.expected, atol=TOLERANCE * max(1, np.abs(run.expected).max())
    )


def test_a_context_loads_once_and_enqueue_only_launches(library, calls):
    run = Run(library, **PROBLEMS["shared 512"])
    run.prepare()
    names = [call.split()[0] for call in calls()]
    assert names[:2] == ["cuInit", "cuCtxGetId"]
    assert (
        names.index("cuModuleLoadData")
        < names.index("cuModuleGetFunction")
        < names.index("cuFuncSetAttribute")
    )
    for _ in range(2):
        run.enqueue()
    assert {call.split()[0] for call in calls()} == {"cuLaunchKernel"}
    other = Run(library)
    other.prepare()
    assert "cuModuleLoadData" not in " ".join(calls())


def test_the_combine_kernel_follows_a_split_launch_on_the_same_stream(library, calls, monkeypatch):
    monkeypatch.setenv("STANDIN_RESIDENT", "4")
    run = Run(library, **PROBLEMS["split"])
    run.prepare()
    calls()
    run.enqueue()
    sizes = {"queries": 4, "keys": 784, "d": 64, "dv": 64, "shared": False, "batch": 2}
    launch = plan(**sizes, processors=8, resident=4)
    assert launch.splits > 1
    assert calls() == [
        f"cuLaunchKernel cla_64 grid 1 {launch.splits} 2 block {launch.block[0]} 1 1 "
        f"shared {launch.shared_bytes} stream {STREAM}",
        f"cuLaunchKernel cla_combine grid 4 1 2 block 128 1 1 shared 0 stream {STREAM}",
    ]


def test_a_new_shape_is_planned_again(library):
    runs = [
        Run(library, batch=batch, grids=grids)
        for batch, grids in ((1, ((4, 4), (8, 8))), (2, ((2, 8), (4, 8))))
    ]
    plugin = runs[0].plugin
    for run in runs:
        run.plugin = plugin
        run.prepare()
        np.testing.assert_allclose(run.enqueue(), run.expected, atol=TOLERANCE)


def test_a_context_of_its_own_gets_a_plugin_of_its_own(library):
    run = Run(library)
    run.prepare()
    attached = run.plugin.attach_to_context(None)
    assert attached is not run.plugin
    run.plugin = attached
    run.prepare()
    np.testing.assert_allclose(run.enqueue(), run.expected, atol=TOLERANCE)


def test_a_driver_that_refuses_a_launch_is_reported(library):
    run = Run(library)
    run.prepare()
    steps = run.plugin._ready._steps
    steps[0] = (*steps[0][:-1], 1 << 20)  # more shared memory than was requested
    with pytest.raises(
        SystemProblem, match=r"cuLaunchKernel failed with 1: CUDA_ERROR_INVALID_VALUE"
    ):
        run.enqueue()


def test_a_device_without_an_image_is_told_so(library, monkeypatch):
    monkeypatch.setenv("STANDIN_CC", "7.5")
    with pytest.raises(SystemProblem, match=r"(?s)compute capability 7.5.*--attention decomposed"):
        Run(library).prepare()


def test_without_a_driver_the_plugin_still_builds_and_says_so_when_run():
    run = Run("libnocuda.so.1")
    with pytest.raises(SystemProblem, match=r"no CUDA driver: libnocuda.so.1"):
        run.prepare()


def test_what_is_serialised_makes_the_same_plugin():
    settings = {"scale": 0.125, "q_scale": 0.5, "k_scale": 0.25, "v_scale": 0.25, "shared": 1}
    plugin = make_plugin(**settings)
    written = plugin.get_fields_to_serialize()
    gc.collect()
    again = creator(trt).create_plugin("attend", written, trt.TensorRTPhase.RUNTIME)
    assert again.attributes == AttentionAttributes(**settings)
    assert again.clone().attributes == again.attributes


@pytest.mark.parametrize("values", [{"shared": 0}, {"scale": 1.0, "shared": 1, "k_scale": 0.5}])
def test_attributes_that_make_no_sense_are_refused(values):
    with pytest.raises(UsageError, match=r"scale"):
        make_plugin(**values)


def test_the_creator_is_named_like_the_node():
    made = creator(trt)
    assert (made.name, made.plugin_version, made.plugin_namespace) == (
        OP.name,
        str(OP.version),
        OP.domain,
    )
    assert [f.name for f in made.field_names] == [
        "scale",
        "q_scale",
        "k_scale",
        "v_scale",
        "shared",
    ]


def test_every_method_that_the_binding_has_no_default_for_is_there():
    """The binding's library names these methods in its error messages."""
    binding = importlib.util.find_spec("tensorrt_rtx_bindings.tensorrt_rtx").origin
    text = Path(binding).read_bytes()
    required = {
        name.decode() for name in re.findall(rb"no implementation provided for (\w+)\(\)", text)
    }
    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)
    needed = {name for base in bases for name in dir(base)} & required
    assert {"set_tactic", "enqueue", "configure_plugin", "get_output_shapes"} <= needed
    assert needed <= set(vars(plugin_module.CrossLayerAttentionPlugin))


def dynamic(desc):
    made = trt.DynamicPluginTensorDesc()
    made.desc, made.min, made.opt, made.max = desc, desc.dims, desc.dims, desc.dims
    return made


def offered(plugin, position, kind, channels):
    forms = trt.TensorFormat.__members__
    accepted = []
    for form in forms:
        tensors = [dynamic(descriptor((1, channels, 7, 7), form, kind)) for _ in range(4)]
        if plugin.supports_format_combination(position, tensors, 3):
            accepted.append(form)
    return accepted


@pytest.mark.parametrize(("channels", "half"), [(64, ["HWC"]), (20, ["HWC8"])])
def test_rtx_which_does_not_time_formats_is_offered_one(channels, half):
    plugin = make_plugin(scale=1.0, k_scale=0.5)
    assert [offered(plugin, position, HALF, channels) for position in range(4)] == [half] * 4
    assert [offered(plugin, position, INT8, channels) for position in range(4)] == [
        [],
        ["CHW32"],
        [],
        [],
    ]


def test_tensorrt_which_times_formats_is_offered_all_the_kernel_reads(monkeypatch):
    plugin = make_plugin(scale=1.0, k_scale=0.5)
    monkeypatch.setattr(type(plugin), "trt", type("tensorrt", (), {"DataType": trt.DataType}))
    for position, kind in itertools.product(range(4), (HALF, INT8)):
        readable = {
            form
            for form in trt.TensorFormat.__members__
            if is_readable(form, kind=kind, channels=64, positions=49)
        }
        assert set(offered(plugin, position, kind, 64)) == (
            readable if kind == HALF or position == 1 else set()
        )


def chains(plugin, dims, position=0, chosen=()):
    """Yield every combination that TensorRT times, asked as it asks: position after position."""
    if position == 4:
        yield chosen
        return
    for kind, form in itertools.product((HALF, INT8), trt.TensorFormat.__members__):
        desc = descriptor(dims[position], form, kind)
        tensors = [dynamic(d) for d in (*chosen, desc, *[desc] * (3 - position))]
        if plugin.supports_format_combination(position, tensors, 3):
            yield from chains(plugin, dims, position + 1, (*chosen, desc))


def timed_combinations(monkeypatch, channels, **settings):
    plugin = make_plugin(scale=1.0, **settings)
    monkeypatch.setattr(type(plugin), "trt", type("tensorrt", (), {"DataType": trt.DataType}))
    (d, dv), (queries, keys) = channels, ((7, 7), (14, 14))
    dims = [(1, d, *queries), (1, d, *keys), (1, dv, *keys), (1, dv, *queries)]
    return list(chains(plugin, dims))


@pytest.mark.parametrize("shared", [0, 1])
def test_few_combinations_of_formats_are_timed(monkeypatch, shared):
    half = timed_combinations(monkeypatch, (64, 64), shared=shared)
    assert len(half) == 27  # 3 of q, 3 of k and v, 3 of y
    assert all(k.format == v.format for _, k, v, _ in half)
    scales = dict.fromkeys(("q_scale", "k_scale", "v_scale"), 0.5)
    mixed = timed_combinations(monkeypatch, (64, 64), shared=shared, **scales)
    # TensorRT asks for no more than 100. Where the network is strongly typed it asks for one type.
    assert len([c for c in mixed if c[K].type == c[V].type]) <= 100
    int8 = [c for c in mixed if {d.type for d in c[:3]} == {trt.DataType.INT8}]
    assert len(int8) == 12  # 2 of q, 2 of k and v, 3 of y


@pytest.mark.parametrize(
    ("channels", "settings"),
    [((64, 20), {}), ((20, 64), {}), ((64, 64), {"k_scale": 0.5}), ((64, 64), {"v_scale": 0.5})],
)
def test_values_that_cannot_be_like_the_keys_are_free(monkeypatch, channels, settings):
    """Another number of channels, or another type."""
    combinations = timed_combinations(monkeypatch, channels, **settings)
    half, int8 = trt.DataType.HALF, trt.DataType.INT8
    keys, values = ([half, int8] if name in settings else [half] for name in ("k_scale", "v_scale"))
    types = {(c[K].type, c[V].type) for c in combinations}
    assert types == set(itertools.product(keys, values))
    assert len(combinations) <= 100


def test_the_timings_of_a_plugin_are_cached_by_its_kernels_and_attributes(monkeypatch):
    plugin = make_plugin(scale=1.0)
    again = (make_plugin(scale=1.0), plugin.clone(), plugin.attach_to_context(None))
    assert {p.timing_cache_id for p in again} == {plugin.timing_cache_id}
    assert len(plugin.timing_cache_id) == 64
    others = [{"scale": 0.5}, {"scale": 1.0, "shared": 1}, {"scale": 1.0, "q_scale": 0.5}]
    ids = {plugin.timing_cache_id, *(make_plugin(**values).timing_cache_id for values in others)}
    assert len(ids) == 4
    plugin_module._timing_cache_id.cache_clear()
    monkeypatch.setattr(plugin_module, "image_digest", lambda: "other kernels")
    assert make_plugin(scale=1.0).timing_cache_id not in ids
    plugin_module._timing_cache_id.cache_clear()


def test_the_workspace_is_that_of_the_largest_shape_of_the_profile():
    plugin = make_plugin(scale=1.0)
    tensors = [
        dynamic(descriptor((1, c, n, n), "LINEAR", HALF)) for c, n in ((64, 7), (64, 14), (96, 14))
    ]
    for tensor in tensors:
        tensor.max = trt.Dims((8, *tensor.max[1:]))
    assert plugin.get_workspace_size(tensors, []) == workspace_bound(
        queries=49, keys=196, d=64, dv=96, shared=False, batch=8
    )
