"""The C++ plugin, called as TensorRT calls it. Its real kernels run on the CPU.

It was not run on hardware.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace

import numpy as np
import pytest

from finedge.ops import CROSS_LAYER_ATTENTION, cross_layer_attention
from finedge.runtime.trt.plugin.attributes import AttentionAttributes
from finedge.runtime.trt.plugin.cross_layer_attention import CrossLayerAttentionPlugin
from finedge.runtime.trt.plugin.launch import COMBINE_BLOCK, plan
from tests.jetson.plugin.conftest import (
    FORMATS,
    HERE_CPU,
    TYPES,
    Tensor,
    build_driver,
    read_output,
)

OP = f"{CROSS_LAYER_ATTENTION.domain}::{CROSS_LAYER_ATTENTION.name}"
# Weights and results are rounded to half precision; values are of size 1.
TOLERANCE = 2e-3
RESIDENT = 2  # blocks that the stand-in fits on a multiprocessor


@dataclass(frozen=True)
class Case:
    """One node: `inputs` and `output` are TensorFormats, FP16 unless `:INT8` follows."""

    d: int
    dv: int
    queries: tuple[int, int]
    keys: tuple[int, int]
    inputs: tuple[str, str, str]
    output: str
    batch: int = 1
    shared: bool = False
    processors: int = 8

    def tensors(self):
        """Draw q, k and v."""
        rng = np.random.default_rng(0)
        shapes = ((self.d, self.queries), (self.d, self.keys), (self.dv, self.keys))
        tensors = [
            self._draw(rng, (self.batch, channels, *grid), form)
            for (channels, grid), form in zip(shapes, self.inputs, strict=True)
        ]
        return [tensors[0], tensors[1], tensors[1] if self.shared else tensors[2]]

    @staticmethod
    def _draw(rng, shape, form):
        form, _, kind = form.partition(":")
        values = rng.normal(size=shape)
        if not kind:
            return Tensor(values.astype(np.float16), form)
        step = float(np.float32(rng.uniform(0.01, 0.03)))
        return Tensor(np.clip(np.rint(values / step), -127, 127).astype(np.int8), form, step)

    @property
    def fields(self):
        q, k, v = self.tensors()
        return {
            "scale": float(np.float32(self.d**-0.5)),
            "q_scale": q.step,
            "k_scale": k.step,
            "v_scale": v.step,
        }

    @property
    def output_shape(self):
        return (self.batch, self.dv, *self.queries)

    def write(self, folder):
        """Write the harness's case."""
        lines = [f"field {name} {value:.9g}" for name, value in self.fields.items()] + [
            "shared"
        ] * self.shared
        for name, tensor in zip("qkv", self.tensors(), strict=True):
            lines.append(tensor.line(name))
            (folder / f"{name}.bin").write_bytes(tensor.memory())
        lines.append(Tensor(np.zeros(self.output_shape, np.float16), self.output).line("y"))
        (folder / "case.txt").write_text("\n".join(lines) + "\n")
        return folder

    def expected(self):
        q, k, v = (t.real for t in self.tensors())
        return cross_layer_attention(q, k, v, scale=self.fields["scale"])


CASES = {
    "hwc8": Case(64, 64, (7, 7), (14, 14), ("HWC8",) * 3, "HWC8", batch=2),
    "linear": Case(40, 24, (3, 5), (9, 7), ("LINEAR",) * 3, "LINEAR"),
    "hwc": Case(32, 96, (4, 4), (6, 6), ("HWC",) * 3, "HWC"),
    "odd channels": Case(33, 20, (3, 5), (9, 7), ("HWC8", "LINEAR", "HWC8"), "HWC8", batch=3),
    "split": Case(64, 64, (4, 4), (28, 28), ("HWC8",) * 3, "HWC8", batch=2, processors=132),
    "one split": Case(64, 128, (5, 5), (8, 8), ("HWC8",) * 3, "LINEAR", processors=1),
    "int8": Case(64, 40, (5, 5), (8, 8), ("CHW32:INT8", "LINEAR:INT8", "CHW32:INT8"), "HWC8"),
    "shared": Case(512, 512, (4, 5), (8, 8), ("HWC8",) * 3, "HWC8", shared=True),
    "shared int8": Case(
        320, 320, (4, 4), (6, 7), ("HWC8", "CHW32:INT8", "CHW32:INT8"), "HWC8", shared=True
    ),
    "shared, two tiles": Case(128, 128, (4, 4), (6, 7), ("HWC8",) * 3, "HWC8", shared=True),
    "shared, largest": Case(1024, 1024, (3, 4), (6, 6), ("HWC8",) * 3, "HWC8", shared=True),
}
SMALL = CASES["hwc8"]


def check(built, case, folder):
    answer, logged = built.walk(
        case.write(folder),
        STANDIN_PROCESSORS=str(case.processors),
        STANDIN_RESIDENT=str(RESIDENT),
        STANDIN_LOG=str(folder / "calls.txt"),
    )
    assert answer["status"] == 0, logged
    y = read_output(folder / "y.bin", shape=case.output_shape, form=case.output)
    np.testing.assert_allclose(y, case.expected(), atol=TOLERANCE)
    return answer, (folder / "calls.txt").read_text().splitlines()


@pytest.mark.parametrize("name", CASES)
def test_enqueue_gives_the_numbers_of_the_reference(name, built, tmp_path):
    case = CASES[name]
    _, calls = check(built, case, tmp_path)
    grids = (np.prod(case.queries), np.prod(case.keys))
    launch = plan(
        queries=grids[0],
        keys=grids[1],
        d=case.d,
        dv=case.dv,
        shared=case.shared,
        batch=case.batch,
        processors=case.processors,
        resident=RESIDENT,
    )
    expected = [call(launch.kernel, launch.grid, launch.block, launch.shared_bytes)]
    assert launch.splits > 1 or name != "split"
    if launch.combine_grid:
        expected.append(call("cla_combine", launch.combine_grid, COMBINE_BLOCK, 0))
    # The harness enqueues twice.
    assert [c for c in calls if c.startswith("cuLaunchKernel")] == 2 * expected


def call(kernel, grid, block, shared):
    """Return a launch as the stand-in logs it."""
    grid, block = (" ".join(map(str, size)) for size in (grid, block))
    return f"cuLaunchKernel {kernel} grid {grid} block {block} shared {shared} stream 0"


def test_a_driver_that_cannot_count_blocks_is_logged(built, tmp_path):
    folder = tmp_path / "driver"
    build_driver(HERE_CPU, folder, "-DSTANDIN_WITHOUT_OCCUPANCY")
    search = {"LD_LIBRARY_PATH": str(folder), "STANDIN_LOG": str(tmp_path / "calls.txt")}
    answer, logged = built.walk(SMALL.write(tmp_path), driver=False, **search)
    assert answer["status"] == 0
    assert "the CUDA driver has no cuOccupancyMaxActiveBlocksPerMultiprocessor" in logged
    y = read_output(tmp_path / "y.bin", shape=SMALL.output_shape, form=SMALL.output)
    np.testing.assert_allclose(y, SMALL.expected(), atol=TOLERANCE)


def test_enqueue_only_launches(built, tmp_path):
    """It can then be captured into a CUDA graph: onShapeChange does all the rest before."""
    _, calls = check(built, SMALL, tmp_path)
    names = [c.split()[0] for c in calls]
    first = names.index("cuLaunchKernel")
    end = names.index("cuCtxSynchronize", first)  # the harness waits after the last enqueue
    assert set(names[first:end]) == {"cuLaunchKernel"}
    assert names[:first].count("cuModuleLoadData") == 1


def test_the_plugin_describes_itself_like_the_operator(built, tmp_path):
    answer, _ = built.walk(SMALL.write(tmp_path))
    assert answer["creator"] == answer["core"] == f"{OP} {CROSS_LAYER_ATTENTION.version}"
    # The axes are those of q, v, q and q.
    assert answer["output"] == {"type": TYPES["HALF"], "axes": [1, 22, 3, 4]}
    assert set(CROSS_LAYER_ATTENTION.attributes) < set(answer["names"])


@pytest.mark.parametrize("name", ["hwc8", "int8", "shared int8"])
def test_the_python_plugin_serializes_the_same_fields(name, built, tmp_path):
    case = CASES[name]
    answer, _ = built.walk(case.write(tmp_path))
    settings = AttentionAttributes(**case.fields, shared=int(case.shared))
    assert list(answer["serialized"]) == list(answer["names"]) == list(vars(settings))
    assert answer["serialized"] == pytest.approx(vars(settings))


class DataType(IntEnum):
    FLOAT, HALF, INT8 = TYPES.values()


class TensorFormat(IntEnum):
    LINEAR, HWC8, CHW32, HWC = FORMATS.values()


def python_chains(case):
    """Every chain of formats that the Python plugin accepts, as the harness writes it."""
    shell = CrossLayerAttentionPlugin(AttentionAttributes(**case.fields, shared=int(case.shared)))
    shell.trt = SimpleNamespace(DataType=DataType, __name__="tensorrt")
    shapes = [t.values.shape for t in case.tensors()] + [case.output_shape]
    for chain in itertools.product(itertools.product(DataType, TensorFormat), repeat=4):
        io = [
            SimpleNamespace(desc=SimpleNamespace(type=t, format=f, dims=s))
            for (t, f), s in zip(chain, shapes, strict=True)
        ]
        if all(shell.supports_format_combination(i, io, 3) for i in range(4)):
            yield " ".join(f"{t}.{f}" for t, f in chain)


@pytest.mark.parametrize("name", ["hwc8", "odd channels", "int8", "shared int8"])
def test_formats_are_those_of_the_python_shell(name, built, tmp_path):
    answer, _ = built.walk(CASES[name].write(tmp_path))
    assert sorted(answer["formats"]) == sorted(python_chains(CASES[name]))


def test_a_linear_map_of_one_position_needs_whole_groups_of_8(built, tmp_path):
    case = Case(33, 40, (1, 1), (1, 3), ("HWC8",) * 3, "HWC8")
    answer, _ = built.walk(case.write(tmp_path))
    assert sorted(answer["formats"]) == sorted(python_chains(case))


@pytest.mark.parametrize(
    ("capability", "kind"), [("8.7", "cubin"), ("8.9", "ptx"), ("12.0", "ptx")]
)
def test_a_device_gets_its_own_machine_code_or_ptx(capability, kind, built, tmp_path):
    log = tmp_path / "calls.txt"
    answer, logged = built.walk(SMALL.write(tmp_path), STANDIN_LOG=str(log), STANDIN_CC=capability)
    assert answer["status"] == 0, logged
    assert f"cuModuleLoadData {kind} 0" in log.read_text()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"driver": False}, "no CUDA driver"),
        ({"STANDIN_CC": "7.5"}, "no image of the attention kernel loads on sm_75"),
        ({"STANDIN_CC": "8.9", "STANDIN_DRIVER_VERSION": "12020"}, "driver for CUDA 12020"),
    ],
)
def test_on_a_device_that_cannot_run_it_status_and_log_say_so(settings, text, built, tmp_path):
    """Only when it runs: an engine may be built for another device."""
    answer, logged = built.walk(SMALL.write(tmp_path), **settings)
    assert answer["status"] == 1
    assert answer["formats"]
    assert re.search(rf"logged: {OP}: .*{text}.*--attention decomposed", logged)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("field scale", "field scales"), "no attribute scale"),
        (("field v_scale 0", "field v_scale 0.5\nshared"), "two scales"),
    ],
)
def test_a_wrong_node_makes_no_plugin_and_says_why(change, text, built, tmp_path):
    path = SMALL.write(tmp_path) / "case.txt"
    path.write_text(path.read_text().replace(*change))
    answer, logged = built.walk(tmp_path)
    assert answer["status"] == "not created"
    assert text in logged


def test_more_channels_than_a_kernel_holds_are_refused_at_build_time(built, tmp_path):
    case = Case(520, 520, (1, 2), (1, 2), ("HWC8",) * 3, "HWC8")
    process = built.start(built.plugin, case.write(tmp_path))
    assert process.returncode == 1
    assert "no kernel holds 520 channels" in process.stderr
    assert "configurePlugin refused" in process.stderr


def test_opening_the_autoload_library_registers_the_plugin(built):
    process = built.start(built.autoload)
    assert process.stdout.split() == [OP], process.stderr


@pytest.mark.parametrize("name", ["int8", "shared"])
def test_a_build_for_a_jetson_gives_the_numbers_of_the_reference(name, cross_built, tmp_path):
    check(cross_built, CASES[name], tmp_path)
    process = cross_built.start(cross_built.autoload)
    assert process.stdout.split() == [OP], process.stderr
