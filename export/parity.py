"""The parity check: the same frames through an ONNX file and PyTorch, before the file is kept.

The model in float64 is the truth. The limit for float32 comes from the model itself: PyTorch
computes it in float32 in two ways, with oneDNN and without, and neither is wrong. After a short
first training, scores reach a thousand. Such a network rounds a thousand times more than one that
has settled.

Two ways are few where one image lies next to a kink of such a network. So a few draws are added, in
float64: weights that differ by half a unit in the last place of float32. Any order of float32's
sums answers as the exact model with such weights would (backward error: Higham 2002, chapter 3).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from finedge.bundle import HALF_FILE
from finedge.errors import GateError
from finedge.runtime.agreement import FP16_LIMIT, allowance

log = logging.getLogger(__name__)

DRAWS = 4  # of weights within rounding: one in three met the kink of the run that needed them
ROUNDING = 2.0**-24  # of a float32, relative
HALF_STEPS = 2.0**13  # float16 keeps 13 bits less than float32
# Of max(1, max |score|): the smallest limit. It allows float32 reordering, no other function.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Expected:
    """The outputs of a model in float64, and by how much float32 may differ, output by output.

    Attributes:
        outputs: float64 [N, ...] each.
        own_errors: the largest error of each output on the same frames, of PyTorch's own float32
            and of weights within its rounding.
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

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the provenance and for stdout."""
        return asdict(self)


def expected_of(
    reference: nn.Module,
    frames: NDArray[np.uint8],
    *,
    outputs: int | None = None,
) -> Expected:
    """Run a `FramesToOutputs` on preprocessed frames.

    It runs in float64, twice in float32, and in float64 with weights within float32's rounding.

    Args:
        reference: it is unchanged afterwards: float32 -> float64 -> float32 is exact.
        frames: uint8 [N, H, W, 3].
        outputs: how many of its results count; None is all, the taps too.
    """
    batch = torch.from_numpy(np.ascontiguousarray(frames))
    with torch.no_grad():
        plain = reference(batch)[:outputs]
        other = _without_onednn(reference, batch)[:outputs]
        reference.double()
        try:
            exact = [t.numpy() for t in reference(batch)[:outputs]]
            draws = [_rounded(reference, batch, seed=seed)[:outputs] for seed in range(DRAWS)]
        finally:
            reference.float()
    ways = (plain, other, *draws)
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

    The limit is `tolerance` * max(1, max |score|), or 8 times PyTorch's own error where that is
    more, at most half of max(1, max |score|). An error calls the model `name`.

    Raises:
        GateError: an output differs by more.
    """
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    outputs = session.run(None, {feed: frames})
    # Frame by frame as well: a batch dimension that was frozen at export would show here.
    single = session.run(None, {feed: frames[:1]})
    exact = expected.outputs[: len(outputs)]
    first = [e[:1] for e in exact]
    pairs = [*zip(outputs, exact, strict=True), *zip(single, first, strict=True)]
    worst = max(_worst(output, e) for output, e in pairs)
    own = max(expected.own_errors[: len(outputs)])
    parity = Parity(worst, allowance(scale_of(exact), own, tolerance=tolerance), len(frames), own)
    if not worst <= parity.limit:  # NaN fails too
        pytorch = f"PyTorch's own float32 error is {own:.2e}"
        allowed = f"at most {parity.limit:.2e} on {len(frames)} images ({pytorch})"
        raise GateError(
            f"{name} differs from PyTorch by {worst:.2e}",
            expected=allowed,
            result=parity.to_json(),
        )
    return parity


def check_file(
    model: onnx.ModelProto, expected: Expected, frames: NDArray[np.uint8], *, name: str
) -> Parity | None:
    """Check the graph of the file `name`, and its outputs against PyTorch.

    Returns:
        the parity; None for the float16 file of a model that cannot be float16.

    Raises:
        GateError: an output differs by more than rounding.
    """
    onnx.checker.check_model(model, full_check=True)
    if name != HALF_FILE:
        return check_parity(model, expected, frames, tolerance=TOLERANCE, name=name)
    try:
        return check_parity(model, expected, frames, tolerance=FP16_LIMIT, name=name)
    except GateError as error:
        if not rounds_too_much(expected, tolerance=FP16_LIMIT):
            raise
        log.warning(
            "%s is left out: %s. Rounding changes this model too much (to do: train it longer)",
            name,
            error.what,
        )
        return None


def rounds_too_much(expected: Expected, *, tolerance: float) -> bool:
    """Tell whether rounding to float16 alone moves the scores by more than `tolerance`.

    It is estimated from the error in float32.
    """
    return HALF_STEPS * expected.own_error > tolerance * expected.scale


def scale_of(exact: Sequence[NDArray[np.float64]]) -> float:
    """Return max(1, max |score|)."""
    return max(1.0, *(float(np.abs(e).max()) for e in exact))


def _without_onednn(reference: nn.Module, batch: torch.Tensor) -> Any:
    backend: Any = torch.backends.mkldnn
    before, backend.enabled = backend.enabled, False
    try:
        return reference(batch)
    finally:
        backend.enabled = before


def _rounded(reference: nn.Module, batch: torch.Tensor, *, seed: int) -> Any:
    """Return the outputs of a float64 model with weights that differ by up to `ROUNDING`."""
    state = [*reference.parameters(), *reference.buffers()]
    weights = [tensor for tensor in state if tensor.is_floating_point()]
    before = [tensor.clone() for tensor in weights]
    generator = torch.Generator().manual_seed(seed)
    for tensor in weights:
        draw = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
        tensor.mul_(1 + draw * ROUNDING)
    try:
        return reference(batch)
    finally:
        for tensor, kept in zip(weights, before, strict=True):
            tensor.copy_(kept)


def _worst(output: NDArray[np.floating], exact: NDArray[np.floating]) -> float:
    return float(np.abs(output.astype(np.float64) - exact).max())
