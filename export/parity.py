"""Proof that the ONNX file is the model: the same images through both, before the file is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from finedge.errors import GateError

TOLERANCE = 1e-4  # of max(1, max |logit|): float32 reordering, not a different function


@dataclass(frozen=True)
class Parity:
    """The largest difference over all outputs and images, and the most that is allowed."""

    max_abs: float
    limit: float
    images: int


def check_parity(model: onnx.ModelProto, reference: nn.Module, frames: NDArray[np.uint8], *, tolerance: float = TOLERANCE, name: str = "ONNX") -> Parity:
    """Compare ONNX Runtime with torch (a `FramesToOutputs`) on preprocessed frames (uint8 [N, H, W, 3]); an error calls the model `name`.

    Raises:
        GateError: an output differs by more than `tolerance` * max(1, max |output|).
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: frames})
    with torch.no_grad():
        expected = [t.numpy() for t in reference(torch.from_numpy(frames))[: len(found)]]
    # Frame by frame as well: a batch dimension that was frozen at export would show here.
    single = session.run(None, {session.get_inputs()[0].name: frames[:1]})
    limit = tolerance * max(1.0, *(float(np.abs(e).max()) for e in expected))
    worst = max(float(np.abs(f - e).max()) for f, e in [*zip(found, expected, strict=True), *zip(single, (e[:1] for e in expected), strict=True)])
    parity = Parity(worst, limit, len(frames))
    if not worst <= limit:  # NaN fails too
        raise GateError(f"{name} differs from PyTorch by {worst:.2e}", expected=f"at most {limit:.2e} on {len(frames)} images", result=to_result(parity))
    return parity


def to_result(parity: Parity) -> dict[str, Any]:
    """Return plain data for the provenance and for stdout."""
    return asdict(parity)
