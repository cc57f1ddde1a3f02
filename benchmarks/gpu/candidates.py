"""What torch offers for the maps of a problem: its attention by each backend, the chain, Triton."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.device import milliseconds
from benchmarks.gpu.problems import GUARD, Attention, Placed

BACKENDS = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa math": SDPBackend.MATH,
}
Call = Callable[[], Tensor]


def of_torch(attention: Attention, *, compiled: bool) -> dict[str, Call]:
    """Return calls on the same maps, seen as [B, 1, positions, channels], by name.

    A backend that has no kernel for the shape raises when it is called. `compiled` adds the chain
    through torch.compile, whose first call takes seconds.
    """
    q, k, v = (_tokens(m) for m in (attention.q, attention.k, attention.v))
    scale = attention.case.scale
    calls: dict[str, Call] = {
        name: partial(_sdpa, which, q, k, v, scale) for name, which in BACKENDS.items()
    }
    calls["chain"] = partial(_chain, q, k, v, scale)
    calls["triton"] = _Tiled(q, k, v, scale)
    if compiled:
        # Else one code object is compiled for changing shapes, and at last not at all.
        torch._dynamo.reset()
        calls["chain compiled"] = partial(torch.compile(_chain, dynamic=False), q, k, v, scale)
    return calls


def _sdpa(which: SDPBackend, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    with sdpa_kernel(which):
        return F.scaled_dot_product_attention(q, k, v, scale=scale)


def _chain(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return torch.softmax((q * scale) @ k.transpose(-1, -2), dim=-1) @ v


class _Tiled:
    """The Triton kernel with the fastest tile for these maps, chosen at the first call."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> None:
        self._maps, self._scale = (q, k, v), scale
        self._best: Call | None = None

    def __call__(self) -> Tensor:
        self._best = self._best or self._fastest()
        return self._best()

    def _fastest(self) -> Call:
        from benchmarks.gpu import triton_attention  # here: not every torch brings Triton

        channels = self._maps[0].shape[-1]
        tiles = triton_attention.TILES.get(channels, ())
        run = partial(triton_attention.run, *self._maps, scale=self._scale)
        calls = [partial(run, tile=tile) for tile in tiles]
        times = [_time(call) for call in calls]
        if not any(time < float("inf") for time in times):
            raise RuntimeError(f"no tile runs with {channels} channels")
        return calls[times.index(min(times))]


def _time(call: Call) -> float:
    """Return the least of a few times; infinite where the tile does not run."""
    try:
        return min([milliseconds(call) for _ in range(4)][1:])
    except Exception:  # too much shared memory, or a limit of the compiler: any type
        return float("inf")


def _tokens(placed: Placed) -> Tensor:
    batch, channels, positions = placed.index.shape
    return placed.memory[GUARD:-GUARD].view(batch, positions, channels).unsqueeze(1)
