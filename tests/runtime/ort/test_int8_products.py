"""INT8 products on this CPU: as measured, as overridden, and exact where exactness counts."""

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
REPORT = """
from finedge.runtime.ort.int8_products import int8_products
from finedge.runtime.machine.cpu import cpu_flags
print(int8_products(), "avx2" in cpu_flags(), "avx512f" in cpu_flags())
"""
QEMU = shutil.which("qemu-x86_64")
# CPU model of the emulator -> what ONNX Runtime's kernels for it do. Nehalem has SSE only; those
# kernels add in 32 bits.
CPUS = {"Haswell": "saturating", "EPYC": "saturating", "Nehalem": "exact"}


def largest_products(
    op: str, kind: type[np.generic], *, inner: int = 16
) -> tuple[onnx.ModelProto, np.ndarray, int]:
    """Make a Q/DQ model of one op whose every product is as large as possible.

    Returns:
        The model, its input, and the exact sum.
    """
    top, convolves = int(np.iinfo(kind).max), op == "Conv"
    total = inner * top * WEIGHT
    constants = {
        "w": np.full((8, inner, 1, 1) if convolves else (inner, 8), WEIGHT, np.int8),
        "w_zero": np.zeros(8, np.int8),
        "w_scale": np.ones(8, np.float32),
        "one": np.float32(1),
        "zero": kind(0),
        "y_scale": np.float32(total / 100),
    }
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
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, op, [source], [answer], stored)
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), x, total


def run_as_is(model: onnx.ModelProto, x: np.ndarray) -> float:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    return float(session.run(None, {"x": x})[0].flat[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_the_probe_agrees_with_a_model(op, kind):
    model, x, total = largest_products(op, kind)
    assert (run_as_is(model, x) == pytest.approx(total)) is (measured_products() == "exact")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_an_exact_session_and_scaled_weights_are_right_on_every_cpu(op, kind):
    model, x, total = largest_products(op, kind)
    assert open_exactly(model).run(None, {"x": x})[0].flat[0] == pytest.approx(total)
    assert run_as_is(reduce_range(model).model, x) == pytest.approx(total)


@pytest.mark.skipif(
    QEMU is None, reason="needs qemu-x86_64, which emulates other CPUs: apt-get install qemu-user"
)
@pytest.mark.parametrize(("cpu", "products"), CPUS.items())
def test_an_emulated_cpu_is_known_by_its_kernels(cpu, products):
    process = subprocess.run(
        [QEMU, "-cpu", cpu, sys.executable, "-c", REPORT],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert process.stdout.split() == [products, str(cpu != "Nehalem"), "False"]


@pytest.mark.parametrize("products", ["exact", "saturating"])
def test_the_override_decides(monkeypatch, products):
    monkeypatch.setenv(OVERRIDE, products)
    assert int8_products() == products


def test_exact_on_a_saturating_cpu_is_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(module, "measured_products", lambda: "saturating")
    monkeypatch.setenv(OVERRIDE, "exact")
    with caplog.at_level(logging.WARNING):
        assert int8_products() == "exact"
    assert "the answers of INT8 files are wrong" in caplog.text


@pytest.mark.parametrize("value", ["exakt", "Exact", "1"])
def test_an_unknown_override_is_refused(monkeypatch, value):
    monkeypatch.setenv(OVERRIDE, value)
    with pytest.raises(UsageError, match=f"{OVERRIDE}={value}") as failure:
        int8_products()
    assert failure.value.exit_code == 2


def test_without_an_override_the_kernels_are_measured_once(monkeypatch):
    monkeypatch.setenv(OVERRIDE, "")
    assert int8_products() == measured_products()
    assert measured_products.cache_info().misses <= 1
