"""A plain FlashAttention-2 forward pass in Triton: what a compiler makes of the same problem.

With `SHARED` the tile of keys is the tile of values too, and is read once. Token-major float16
maps; one program takes `ROWS` queries of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """How a program is cut."""

    rows: int
    columns: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}, {self.warps} warps, {self.stages} stages"


TILES = {
    64: (Tile(64, 64, 4, 3), Tile(128, 64, 4, 3), Tile(16, 64, 4, 3)),
    128: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 2), Tile(16, 64, 4, 3)),
    256: (Tile(64, 64, 4, 2), Tile(64, 32, 4, 3), Tile(128, 64, 8, 2)),
    512: (Tile(64, 32, 8, 2), Tile(64, 64, 8, 1), Tile(32, 32, 4, 2), Tile(16, 64, 4, 2)),
}


@triton.jit(do_not_specialize=["queries", "keys"])  # type: ignore[untyped-decorator]
def attend(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    y,
    queries,
    keys,
    scale,
    SHARED: tl.constexpr,  # noqa: N803 - Triton's way to write constants
    D: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
):
    """Compute y = softmax(scale q k^T) v of [batch, positions, D]."""
    image = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, D)
    q += image * queries * D
    k += image * keys * D
    v += image * keys * D
    y += image * queries * D
    inside = row[:, None] < queries
    tile_q = tl.load(q + row[:, None] * D + channel[None, :], mask=inside, other=0.0)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, D], tl.float32)
    for start in range(0, keys, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        tile_k = tl.load(
            k + column[:, None] * D + channel[None, :], mask=column[:, None] < keys, other=0.0
        )
        score = tl.dot(tile_q, tl.trans(tile_k)) * (scale * 1.4426950408889634)
        score = tl.where(column[None, :] < keys, score, float("-inf"))
        new = tl.maximum(peak, tl.max(score, 1))
        weight = tl.exp2(score - new[:, None])
        shrink = tl.exp2(peak - new)
        mass = mass * shrink + tl.sum(weight, 1)
        if SHARED:
            tile_v = tile_k
        else:
            tile_v = tl.load(
                v + column[:, None] * D + channel[None, :], mask=column[:, None] < keys, other=0.0
            )
        total = tl.dot(weight.to(tl.float16), tile_v, total * shrink[:, None])
        peak = new
    tl.store(
        y + row[:, None] * D + channel[None, :], (total / mass[:, None]).to(tl.float16), mask=inside
    )


def run(q: Tensor, k: Tensor, v: Tensor, *, scale: float, tile: Tile) -> Tensor:
    """Attend over [batch, 1, positions, channels]."""
    batch, _, queries, channels = q.shape
    y, options = torch.empty_like(q), {"num_warps": tile.warps, "num_stages": tile.stages}
    shared: Any = k.data_ptr() == v.data_ptr()
    grid = (-(-queries // tile.rows), batch)
    attend[grid](
        q, k, v, y, queries, k.shape[2], scale, shared, channels, tile.rows, tile.columns, **options
    )
    return y
