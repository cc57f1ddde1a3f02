"""Attention problems in GPU memory, laid out as TensorRT lays maps out, and the kernel on them.

Around every buffer that the kernel writes lie guard bands; what no element occupies is NaN, or
`INT8_POISON`. Without a GPU the memory is the CPU's, which is what a stand-in for the driver reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.case import INT8_POISON, INT8_SCALE, Case
from finedge.runtime.trt.plugin.driver import Driver, parameters_of
from finedge.runtime.trt.plugin.launch import (
    COMBINE,
    COMBINE_BLOCK,
    HALF,
    INT8,
    AttentionShape,
    Map,
    MapLayout,
    kernel_for,
    plan,
)

GUARD = 4096  # elements on either side
GUARD_BYTE = 0x5A
NAN = torch.tensor([float("nan")], dtype=torch.float16)


@dataclass(frozen=True)
class Placed:
    """A map in memory: `memory` is flat, `index` [B, C, N] says where each element lies in it."""

    memory: Tensor
    index: Tensor
    layout: MapLayout

    @classmethod
    def of(
        cls, shape: tuple[int, int, int], *, form: str, kind: int, device: torch.device
    ) -> Placed:
        """Make poisoned memory for a map [B, C, N]."""
        batch, channels, positions = shape
        layout = MapLayout.of(form, kind=kind, channels=channels, positions=positions)
        c = torch.arange(channels, device=device)[None, :, None]
        t = torch.arange(positions, device=device)[None, None, :]
        b = torch.arange(batch, device=device)[:, None, None]
        inside = t * layout.token + c // 32 * layout.group + c % 32 * layout.channel
        size = 2 * GUARD + batch * layout.batch
        values = torch.tensor(INT8_POISON, dtype=torch.int8) if kind == INT8 else NAN
        memory = values.repeat(-(-size // len(values)))[:size].to(device)
        return cls(memory, GUARD + b * layout.batch + inside, layout)

    def fill(self, values: Tensor) -> None:
        """Write a map [B, C, N]."""
        self.memory[self.index] = values

    def read(self) -> Tensor:
        """Return the map [B, C, N]."""
        return self.memory[self.index]

    def exact(self, *, images: int | None = None) -> Tensor:
        """Return the map in float64 as the kernel reads it, of the first `images`.

        INT8 is scaled and rounded to float16.
        """
        values = self.memory[self.index[:images]]
        if values.dtype == torch.int8:
            values = (values.float() * INT8_SCALE).half()
        return values.double()

    def map(self) -> Map:
        """Return the kernel's view of it."""
        made = self.layout.map(scale=INT8_SCALE if self.layout.kind == INT8 else 1.0)
        made.data = self.memory.data_ptr() + GUARD * self.memory.element_size()
        return made

    def guards(self) -> Tensor:
        """Return the bytes before and after the map."""
        return torch.cat([self.memory[:GUARD], self.memory[-GUARD:]]).view(torch.uint8)


class Attention:
    """A case in memory, and the launches that answer it."""

    def __init__(self, case: Case, driver: Driver, *, device: torch.device) -> None:
        self.case, self._driver = case, driver
        self.q, self.k, self.v = _inputs(case, device)
        shape = (case.batch, case.dv, case.queries)
        self.y = Placed.of(shape, form=case.form_out, kind=HALF, device=device)
        kernels = driver.kernels()
        kernel = kernel_for(d=case.d, dv=case.dv, shared=case.shared)
        sizes: dict[str, Any] = {
            "queries": case.queries,
            "keys": case.keys,
            "d": case.d,
            "dv": case.dv,
            "batch": case.batch,
        }
        gpu = {"processors": kernels.processors, "resident": kernels.resident(kernel)}
        self.plan = plan(**sizes, shared=case.shared, **gpu)
        self.splits = case.splits or self.plan.splits
        room = case.batch * self.splits * case.queries * (case.dv + 2) * 4 if self.splits > 1 else 0
        self.workspace = torch.full(
            (room + 2 * GUARD,), GUARD_BYTE, dtype=torch.uint8, device=device
        )
        self.problem = self._problem()
        self._parameters = parameters_of(self.problem)
        grid = (-(-case.queries // kernel.queries), self.splits, case.batch)
        self._steps: list[tuple[Any, ...]] = []
        function = kernels.function(kernel.name, shared_bytes=kernel.shared_bytes)
        self._steps.append((function, *grid, kernel.threads, 1, 1, kernel.shared_bytes))
        if self.splits > 1:
            combine = kernels.function(COMBINE, shared_bytes=0)
            self._steps.append((combine, case.queries, 1, case.batch, *COMBINE_BLOCK, 0))

    def run(self) -> None:
        """Record the launches on torch's current stream."""
        stream = torch.cuda.current_stream().cuda_stream if self.y.memory.is_cuda else 0
        for step in self._steps:
            self._driver.launch(*step, stream=stream, parameters=self._parameters)

    def answer(self) -> Tensor:
        """Poison the output, run, and return [B, dv, N] in float16."""
        self.y.memory[GUARD:-GUARD] = float("nan")
        self.run()
        return self.y.read()

    def exact(self, *, images: int | None = None) -> Tensor:
        """Return the answer in float64 [B, dv, N], of the first `images`."""
        q, k, v = (m.exact(images=images) for m in (self.q, self.k, self.v))
        weights = torch.softmax(self.case.scale * q.transpose(1, 2) @ k, dim=-1)
        return v @ weights.transpose(1, 2)

    def guarded(self) -> bool:
        """Tell whether nothing was written outside the output and the workspace."""
        poison = torch.full(
            (2 * GUARD,), float("nan"), dtype=torch.float16, device=self.y.memory.device
        ).view(torch.uint8)
        bands = torch.cat([self.workspace[:GUARD], self.workspace[-GUARD:]])
        return bool(torch.equal(self.y.guards(), poison)) and bool((bands == GUARD_BYTE).all())

    def _problem(self) -> AttentionShape:
        case, maps = self.case, [m.map() for m in (self.q, self.k, self.v, self.y)]
        partial = self.workspace.data_ptr() + GUARD
        return AttentionShape(
            *maps,
            partial,
            case.queries,
            case.keys,
            case.d,
            case.dv,
            self.splits,
            case.batch,
            case.scale,
            0,
        )


def _inputs(case: Case, device: torch.device) -> tuple[Placed, Placed, Placed]:
    generator = torch.Generator(device=device).manual_seed(case.seed)

    def one(channels: int, positions: int, which: int, gain: float) -> Placed:
        placed = Placed.of(
            (case.batch, channels, positions),
            form=case.forms[which],
            kind=case.kinds[which],
            device=device,
        )
        values = gain * torch.randn(placed.index.shape, generator=generator, device=device)
        if case.kinds[which] == INT8:
            placed.fill((values / INT8_SCALE).round().clamp(-128, 127).to(torch.int8))
        else:
            placed.fill(values.half())
        return placed

    q = one(case.d, case.queries, 0, case.gain)
    k = one(case.d, case.keys, 1, case.key_gain)
    return q, k, k if case.shared else one(case.dv, case.keys, 2, case.value_gain)
