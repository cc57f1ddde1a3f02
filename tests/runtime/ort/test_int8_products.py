"""What INT8 products become on this CPU: asked of the kernels, said by the override, and never wrong where it counts."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.errors import UsageError
from finedge.graph.reduce_range import reduce_range
from finedge.runtime.ort import int8_products as module
from finedge.runtime.ort.int8_products import (
    OVERRIDE,
    int8_products,
    measured_products,
    open_exactly,
)

pytestmark = pytest.mark.int8

WEIGHT = 127
OPS = ("Conv", "Gemm", "MatMul")
KINDS = (np.uint8, np.int8)
QEMU = shutil.which("qemu-x86_64")
# CPU model of the emulator -> what ONNX Runtime's kernels for it do. Nehalem has SSE only, whose kernels add in 32 bits.
CPUS = {"Haswell": "saturating", "EPYC": "saturating", "Nehalem": "exact"}


def largest_products(
    op: str, kind: type[np.generic], *, inner: int = 16
) -> tuple[onnx.ModelProto, np.ndarray, int]:
    """A Q/DQ model of one op whose every product is the largest that can be, its input, and the exact sum."""
    top, convolves = int(np.iinfo(kind).max), op == "Conv"
    total = inner * top * WEIGHT
    constants = {
        "w": np.full((8, inner, 1, 1) if convolves else (inner, 8), WEIGHT, np.int8),
        "w_zero": np.zeros(8, np.int8), "w_scale": np.ones(8, np.float32), "one": np.float32(1), "zero": kind(0),
        "y_scale": np.float32(total / 100),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["x_stored"]),
        helper.make_node("DequantizeLinear", ["x_stored", "one", "zero"], ["x_again"]),
        helper.make_node(
            "DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_again"], axis=0 if convolves else 1
        ),
        helper.make_node(op, ["x_again", "w_again"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "y_scale", "zero"], ["y_stored"]),
        helper.make_node("DequantizeLinear", ["y_stored", "y_scale", "zero"], ["y"]),
    ]
    x = np.full((1, inner, 1, 1) if convolves else (1, inner), top, np.float32)
    taken, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", x.shape), ("y", None))
    )
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, op, [taken], [made], stored)
    return (
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        x,
        total,
    )


def as_it_runs(model: onnx.ModelProto, x: np.ndarray) -> float:
    import onnxruntime

    return float(
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        .run(None, {"x": x})[0]
        .flat[0]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_the_probe_says_what_a_model_meets(op, kind):
    model, x, total = largest_products(op, kind)
    assert (as_it_runs(model, x) == pytest.approx(total)) is (measured_products() == "exact")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_an_exact_session_and_7_bit_weights_are_right_on_every_cpu(op, kind):
    model, x, total = largest_products(op, kind)
    assert open_exactly(model).run(None, {"x": x})[0].flat[0] == pytest.approx(total)
    assert as_it_runs(reduce_range(model), x) == pytest.approx(total)


@pytest.mark.skipif(
    QEMU is None, reason="needs qemu-x86_64, which emulates other CPUs: apt-get install qemu-user"
)
@pytest.mark.parametrize(("cpu", "products"), CPUS.items())
def test_an_emulated_cpu_is_known_by_its_kernels(cpu, products):
    code = "from finedge.runtime import cpu, int8_products; print(int8_products.int8_products(), 'avx2' in cpu.cpu_flags(), 'avx512f' in cpu.cpu_flags())"
    done = subprocess.run(
        [QEMU, "-cpu", cpu, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.split() == [products, str(cpu != "Nehalem"), "False"]


@pytest.mark.parametrize("said", ["exact", "saturating"])
def test_the_override_is_taken_at_its_word(monkeypatch, said):
    monkeypatch.setenv(OVERRIDE, said)
    assert int8_products() == said


def test_an_override_that_is_wrong_here_and_dangerous_is_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(module, "measured_products", lambda: "saturating")
    monkeypatch.setenv(OVERRIDE, "exact")
    with caplog.at_level(logging.WARNING):
        assert int8_products() == "exact"
    assert "the answers of INT8 files are wrong" in caplog.text


@pytest.mark.parametrize("said", ["exakt", "Exact", "1"])
def test_an_override_that_is_no_word_of_ours_is_refused(monkeypatch, said):
    monkeypatch.setenv(OVERRIDE, said)
    with pytest.raises(UsageError, match=f"{OVERRIDE}={said}") as failure:
        int8_products()
    assert failure.value.exit_code == 2


def test_without_an_override_the_kernels_are_asked_once(monkeypatch):
    monkeypatch.setenv(OVERRIDE, "")
    assert int8_products() == measured_products()
    assert measured_products.cache_info().misses <= 1
