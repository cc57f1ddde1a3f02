"""The device of a training: the CPU, or an NVIDIA GPU if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from finedge.errors import SystemProblem

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]


def choose_device(name: Device) -> torch.device:
    """Return the device; `auto` takes the GPU where there is one.

    Raises:
        SystemProblem: `cuda`, and there is no GPU.
    """
    import torch  # here, so that --help does not wait for it

    if name == "cuda" and not torch.cuda.is_available():
        raise SystemProblem(
            "no CUDA device can be used by this torch",
            expected="an NVIDIA GPU and a CUDA build of torch",
            fix="--device cpu",
        )
    gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if gpu else "cpu")
