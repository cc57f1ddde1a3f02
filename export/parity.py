"""Proof that the ONNX file is the model: the same frames through both, before the file is kept.

What is right is the model in float64. The limit for float32 comes from the model itself: PyTorch
computes it in float32 in two ways, with oneDNN and without, and neither is wrong. A network of a
first short training, whose scores reach a thousand, rounds a thousand times more than one that has
settled.

Two ways are few where one image lies beside a kink of such a network. So a few draws are added,
in float64: weights that differ by half a unit in the last place of float32. Any order of float32's
sums answers as the exact model with such weights would (backward error: Higham 2002, chapter 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from finedge.errors import GateError
from finedge.runtime.agreement import allowance

DRAWS = 4  # of weights within rounding: one in three met the kink of the run that asked for them
ROUNDING = 2.0**-24  # of a float32, relative
HALF_STEPS = 2.0**13  # float16 keeps 13 bits less than float32
# Of max(1, max |score|): the least that is allowed. Float32 reordering, not a different function.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Expected:
    """The outputs of a model in float64, and by how much float32 may differ, output by output.

    The errors are the largest on the same frames: of PyTorch's own float32, and of weights within
    its rounding.
    """

    outputs: tuple[NDArray[np.float64], ...]
    own_errors: tuple[float, ...]

    @property
    def own_error(self) -> float:
        """The largest of all outputs."""
        return max(self.own_errors)

    @property
    def scale(self) -> float:
        """max(1, max |score|) of all outputs."""
        return scale_of(self.outputs)


@dataclass(frozen=True)
class Parity:
    """The largest difference of all outputs and images, its limit, and PyTorch's own error."""

    max_abs: float
    limit: float
    images: int
    own_error: float


def expected_of(
    reference: nn.Module,
    frames: NDArray[np.uint8],
    *,
    outputs: int | None = None,
) -> Expected:
    """Run a `FramesToOutputs` on preprocessed frames (uint8 [N, H, W, 3]).

    In float64; twice in float32; and in float64 with weights within float32's rounding.

    Args:
        reference: left as it was: float32 -> float64 -> float32 is exact.
        frames: what it is given.
        outputs: how many of its results count; None is all, the taps too.
    """
    given = torch.from_numpy(np.ascontiguousarray(frames))
    with torch.no_grad():
        plain = reference(given)[:outputs]
        other = _without_onednn(reference, given)[:outputs]
        reference.double()
        try:
            exact = [t.numpy() for t in reference(given)[:outputs]]
            drawn = [_rounded(reference, given, seed=seed)[:outputs] for seed in range(DRAWS)]
        finally:
            reference.float()
    ways = (plain, other, *drawn)
    errors = [max(_worst(way[k].numpy(), e) for way in ways) for k, e in enumerate(exact)]
    return Expected(tuple(exact), tuple(errors))


def check_parity(
    model: onnx.ModelProto,
    expected: Expected,
    frames: NDArray[np.uint8],
    *,
    tolerance: float = TOLERANCE,
    name: str = "ONNX",
) -> Parity:
    """Compare ONNX Runtime with `expected` on the same frames (uint8 [N, H, W, 3]).

    An error calls the model `name`.

    Allowed is `tolerance` * max(1, max |score|), or 8 times PyTorch's own error where that is more,
    at most half of it.

    Raises:
        GateError: an output differs by more.
    """
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    found = session.run(None, {feed: frames})
    # Frame by frame as well: a batch dimension that was frozen at export would show here.
    single = session.run(None, {feed: frames[:1]})
    exact = expected.outputs[: len(found)]
    first = [e[:1] for e in exact]
    pairs = [*zip(found, exact, strict=True), *zip(single, first, strict=True)]
    worst = max(_worst(f, e) for f, e in pairs)
    own = max(expected.own_errors[: len(found)])
    parity = Parity(worst, allowance(scale_of(exact), own, tolerance=tolerance), len(frames), own)
    if not worst <= parity.limit:  # NaN fails too
        pytorch = f"PyTorch's own float32 error is {own:.2e}"
        allowed = f"at most {parity.limit:.2e} on {len(frames)} images ({pytorch})"
        raise GateError(
            f"{name} differs from PyTorch by {worst:.2e}",
            expected=allowed,
            result=to_result(parity),
        )
    return parity


def rounds_too_much(expected: Expected, *, tolerance: float) -> bool:
    """Tell whether rounding to float16 alone moves the scores by more than `tolerance`.

    It is estimated from the error in float32.
    """
    return HALF_STEPS * expected.own_error > tolerance * expected.scale


def scale_of(exact: Sequence[NDArray[np.float64]]) -> float:
    """Return max(1, max |score|)."""
    return max(1.0, *(float(np.abs(e).max()) for e in exact))


def to_result(parity: Parity) -> dict[str, Any]:
    """Return plain data for the provenance and for stdout."""
    return asdict(parity)


def _without_onednn(reference: nn.Module, given: torch.Tensor) -> Any:
    backend: Any = torch.backends.mkldnn
    before, backend.enabled = backend.enabled, False
    try:
        return reference(given)
    finally:
        backend.enabled = before


def _rounded(reference: nn.Module, given: torch.Tensor, *, seed: int) -> Any:
    """Return what a float64 model answers with weights that differ by up to `ROUNDING` of them."""
    state = [*reference.parameters(), *reference.buffers()]
    weights = [tensor for tensor in state if tensor.is_floating_point()]
    before = [tensor.clone() for tensor in weights]
    generator = torch.Generator().manual_seed(seed)
    for tensor in weights:
        draw = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
        tensor.mul_(1 + draw * ROUNDING)
    try:
        return reference(given)
    finally:
        for tensor, kept in zip(weights, before, strict=True):
            tensor.copy_(kept)


def _worst(found: NDArray[np.floating], exact: NDArray[np.floating]) -> float:
    return float(np.abs(found.astype(np.float64) - exact).max())
