"""The parity check: its limit follows PyTorch's own float32 error, and real faults still fail."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from finedge.bundle import HALF_FILE
from finedge.errors import GateError
from finedge.export.onnx_files import float16_file
from finedge.export.parity import TOLERANCE, check_file, check_parity, expected_of
from finedge.export.to_onnx import FramesToOutputs, to_onnx
from finedge.runtime.agreement import MAX_ALLOWANCE, OWN_ERRORS, allowance
from tests.small_models import small_export, small_model

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def calm():
    """A model that rounds as float32 does: its ONNX and its reference."""
    model, spec = small_model()
    proto = onnx.ModelProto.FromString(small_export()[0])
    return proto, FramesToOutputs(model, spec.preprocess).eval()


@pytest.fixture(scope="module")
def wild():
    """A model whose scores are small differences of large numbers: measured 0.7 % of error.

    A first short training leaves such a model.
    """
    model, spec = unsettled(*small_model(name="plain", backbone="resnet18"))
    return ir.to_proto(to_onnx(model, spec)[0]), FramesToOutputs(model, spec.preprocess).eval()


def unsettled(model, spec):
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    (linear,) = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        norms[-1].bias += 1e4
        linear.weight -= linear.weight.mean(dim=1, keepdim=True)
    return model, spec


def bent(model: onnx.ModelProto, *, by: float) -> onnx.ModelProto:
    """The model with a weight of its last layer moved by a share of itself."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    gemm = next(n for n in reversed(copy.graph.node) if n.op_type == "Gemm")
    weight = next(t for t in copy.graph.initializer if t.name == gemm.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= 1 + by
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return copy


def test_the_reference_is_left_as_it_was(calm):
    before = {k: v.clone() for k, v in calm[1].state_dict().items()}
    expected_of(calm[1], FRAMES)
    after = calm[1].state_dict()
    assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in before.items()}
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_a_calm_model_has_the_narrow_gate(calm):
    parity = check_parity(calm[0], expected_of(calm[1], FRAMES, outputs=1), FRAMES)
    assert 0 < OWN_ERRORS * parity.own_error < parity.limit
    assert (
        parity.max_abs
        <= parity.limit
        <= TOLERANCE * max(1, np.abs(expected_of(calm[1], FRAMES, outputs=1).outputs[0]).max())
    )


def test_a_model_that_makes_much_of_rounding_is_no_false_alarm(wild):
    expected = expected_of(wild[1], FRAMES, outputs=1)
    assert expected.own_error > TOLERANCE * expected.scale, (
        "PyTorch itself does not pass the narrow gate"
    )
    parity = check_parity(wild[0], expected, FRAMES)
    assert parity.limit == pytest.approx(OWN_ERRORS * expected.own_error)


@pytest.mark.parametrize(("kind", "by"), [("calm", 0.01), ("wild", 1.0)])
def test_a_real_fault_is_caught(request, kind, by):
    model, reference = request.getfixturevalue(kind)
    with pytest.raises(GateError, match="differs from PyTorch"):
        check_parity(bent(model, by=by), expected_of(reference, FRAMES, outputs=1), FRAMES)


def test_what_is_not_a_number_is_caught(calm):
    with pytest.raises(GateError, match="nan"):
        check_parity(
            bent(calm[0], by=float("nan")), expected_of(calm[1], FRAMES, outputs=1), FRAMES
        )


class Kink(torch.nn.Module):
    """Just at the edge of a ReLU: float32 and float64 agree to the last bit that all is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, frames):
        edge = torch.relu(self.weight - 1) * 2**24
        return (edge.expand(len(frames), 2),)


def test_weights_within_rounding_show_a_kink_that_pytorch_misses_twice():
    kink = Kink()
    expected = expected_of(kink, FRAMES)
    assert not expected.outputs[0].any()
    assert 0 < expected.own_error <= 1, "weights within rounding, 2**-24 of them, go over the edge"
    assert kink.weight.item() == 1


def test_no_error_of_its_own_opens_the_gate_wider_than_half_of_the_scores():
    assert allowance(100.0, 90.0, tolerance=TOLERANCE) == MAX_ALLOWANCE * 100
    assert allowance(100.0, 0.0, tolerance=TOLERANCE) == TOLERANCE * 100


def test_float16_is_left_out_only_where_rounding_alone_breaks_it(calm, wild, caplog):
    with caplog.at_level(logging.WARNING):
        half, expected = float16_file(wild[0]), expected_of(wild[1], FRAMES, outputs=1)
        assert check_file(half, expected, FRAMES, name=HALF_FILE) is None
    assert f"{HALF_FILE} is left out" in caplog.text
    expected = expected_of(calm[1], FRAMES, outputs=1)
    with pytest.raises(GateError, match=HALF_FILE):
        check_file(bent_half(calm[0]), expected, FRAMES, name=HALF_FILE)


def bent_half(model: onnx.ModelProto) -> onnx.ModelProto:
    return float16_file(bent(model, by=5.0))
