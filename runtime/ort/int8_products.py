"""Whether ONNX Runtime's INT8 products saturate on this CPU: its own kernels show it.

On x86 without VNNI its AVX2 and AVX-512 kernels add two products of an unsigned activation and a
signed weight in 16 bits: 2 * 255 * 127 does not fit, and the sum is clamped silently. The SSE
kernels, those for VNNI and AMX, and those of ARM add in 32 bits. A list of CPUs or flags would
guess which kernel runs; a product of the largest numbers shows it, on every system and under
emulation.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError, nearest

if TYPE_CHECKING:
    import onnx
    import onnxruntime

log = logging.getLogger(__name__)

Products = Literal["exact", "saturating"]
# An environment variable for tests and experts; without it the kernels are measured.
OVERRIDE = "FINEDGE_CPU_INT8"
PROVIDER = "CPUExecutionProvider"
# ONNX Runtime then multiplies U8 by U8 where U8 by S8 would saturate: exact, and slower.
EXACT_SETTING = ("session.x64quantprecision", "1")
WEIGHT = 127  # symmetric weights: -128 is not stored
# The probe's answers lie in the middle of their type's range when exact.
ANSWER = 100


def int8_products() -> Products:
    """Return whether sums of INT8 products are "exact" or "saturating" on this CPU.

    FINEDGE_CPU_INT8 decides where it is set; else the kernels are measured.

    Raises:
        UsageError: FINEDGE_CPU_INT8 is neither.
    """
    setting = os.environ.get(OVERRIDE, "")
    if not setting:
        return measured_products()
    if setting == "saturating":
        return "saturating"
    if setting != "exact":
        raise UsageError(
            f"{OVERRIDE}={setting}",
            expected=nearest(setting, get_args(Products)),
            fix="unset it: the CPU is then measured",
        )
    if measured_products() == "saturating":
        log.warning(
            "%s=exact, but products saturate on this CPU: the answers of INT8 files are wrong",
            OVERRIDE,
        )
    return "exact"


@functools.cache
def measured_products() -> Products:
    """Run each kind of INT8 product with the largest numbers; one wrong sum is "saturating".

    It takes 20 ms, once in a process.
    """
    return "exact" if all(p.is_exact() for p in _probes()) else "saturating"


def open_exactly(model: onnx.ModelProto | str | bytes) -> onnxruntime.InferenceSession:
    """Open a model whose INT8 products are exact on every CPU: for checks, never for speed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_SETTING)
    content = model if isinstance(model, str | bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=[PROVIDER])


@dataclass(frozen=True)
class _Probe:
    """One quantized op: the largest activations times weights [K, N] or [N, K, H, W] of 127.

    `rows`: the batch. A matrix of one row has its own kernel.
    """

    op: Literal["QLinearConv", "QLinearMatMul"]
    kind: type[np.uint8] | type[np.int8]
    rows: int
    weights: tuple[int, ...]

    def is_exact(self) -> bool:
        """Tell whether the op returns the exact number."""
        return bool(np.all(self._answers() == ANSWER))

    def _answers(self) -> NDArray[np.generic]:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        numbers = self._numbers()
        opsets = [onnx.helper.make_opsetid("", 13)]
        model = onnx.helper.make_model(self._graph(numbers), opset_imports=opsets, ir_version=8)
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=[PROVIDER])
        answers: NDArray[np.generic] = session.run(None, {"x": numbers["x"]})[0]
        return answers

    def _numbers(self) -> dict[str, NDArray[np.generic]]:
        """Return the inputs of the op by name; the output scale turns the exact sum into 100."""
        top = np.iinfo(self.kind).max
        convolves = self.op == "QLinearConv"
        inner = self.weights[1:] if convolves else self.weights[:1]
        total = int(top) * WEIGHT * int(np.prod(inner))
        zero, one = np.zeros((), self.kind), np.ones((), np.float32)
        shape = (self.rows, *inner)
        return {
            "x": np.full(shape, top, self.kind),
            "x_scale": one,
            "x_zero": zero,
            "w": np.full(self.weights, WEIGHT, np.int8),
            "w_scale": one,
            "w_zero": np.zeros((), np.int8),
            "y_scale": np.float32(total / ANSWER) * one,
            "y_zero": zero,
        }

    def _graph(self, numbers: dict[str, NDArray[np.generic]]) -> onnx.GraphProto:
        from onnx import helper, numpy_helper

        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        constants = {name: np.asarray(value) for name, value in numbers.items() if name != "x"}
        stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        node = helper.make_node(self.op, list(numbers), ["y"])
        source = helper.make_tensor_value_info("x", kind, list(numbers["x"].shape))
        answer = helper.make_tensor_value_info("y", kind, None)
        return helper.make_graph([node], "probe", [source], [answer], stored)


def _probes() -> Iterator[_Probe]:
    """Yield both kinds of activation, one row and several, several inner sizes and kernels."""
    for kind in (np.uint8, np.int8):
        for rows in (1, 5):
            for inner in (2, 64, 100):
                yield _Probe("QLinearMatMul", kind, rows, (inner, 16))
            for inner, side in ((3, 3), (32, 1)):
                yield _Probe("QLinearConv", kind, rows, (16, inner, side, side))
