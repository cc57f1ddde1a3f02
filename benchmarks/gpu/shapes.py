"""The attention problems that are timed: what CNL asks for on ResNet-50."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.gpu.case import Case

# Image side, and from which layer to which: (queries, keys).
GRIDS = {
    "224 L4<-L3": (49, 196),
    "224 L4<-L2": (49, 784),
    "448 L4<-L3": (196, 784),
    "448 L4<-L2": (196, 3136),
}
# Channels, and whether the keys are the values too.
HEADS = ((64, False), (128, False), (256, False), (512, False), (512, True), (1024, True))


@dataclass(frozen=True)
class Shape:
    """A name of `GRIDS`, channels, whether the keys are the values, and the batch."""

    grid: str
    channels: int
    shared: bool
    batch: int

    @property
    def case(self) -> Case:
        """The problem."""
        queries, keys = GRIDS[self.grid]
        return Case(queries, keys, self.channels, self.channels, self.batch, self.shared)

    def floor_us(self, *, flops: float, bytes_per_s: float) -> float:
        """Return the least microseconds at these rates: every map is read or written once."""
        queries, keys = GRIDS[self.grid]
        operations = 4 * self.batch * queries * keys * self.channels
        positions = 2 * queries + (1 if self.shared else 2) * keys
        moved = 2 * self.batch * self.channels * positions
        return 1e6 * max(operations / flops, moved / bytes_per_s)
