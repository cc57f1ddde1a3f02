"""One problem of cross-layer attention, and its maps on the host. No torch, no CUDA.

The tests of the kernel on the CPU and every program here draw their problems from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.ops import cross_layer_attention
from finedge.runtime.trt.plugin.launch import HALF, INT8, Map, MapLayout, kernel_for

INT8_SCALE = 0.03
# They differ from key to key: what all scores of a query have in common shows nowhere.
INT8_POISON = (127, -128, 90)


@dataclass(frozen=True)
class Case:
    """Sizes and formats.

    Attributes:
        queries: Hq Wq.
        keys: Hk Wk.
        d: channels of queries and keys.
        dv: channels of values.
        batch: images.
        shared: keys and values are one map.
        splits: of the keys; 0 leaves their number to whoever launches.
        forms: TensorFormats of q, k and v.
        kinds: HALF or INT8, of q, k and v.
        form_out: TensorFormat of y.
        gain: of the queries; a large one makes a softmax with one winner.
        value_gain: of the values, and of the keys that are the values too.
        seed: of the values.
    """

    queries: int
    keys: int
    d: int
    dv: int
    batch: int = 1
    shared: bool = False
    splits: int = 0
    forms: tuple[str, str, str] = ("HWC8", "HWC8", "HWC8")
    kinds: tuple[int, int, int] = (HALF, HALF, HALF)
    form_out: str = "HWC8"
    gain: float = 1.0
    value_gain: float = 1.0
    seed: int = 0

    @property
    def scale(self) -> float:
        """1/sqrt(d), as in the paper."""
        return float(self.d**-0.5)

    @property
    def kernel(self) -> str:
        """The name of the kernel that answers it."""
        return kernel_for(d=self.d, dv=self.dv, shared=self.shared).name

    @property
    def key_gain(self) -> float:
        """What multiplies the keys."""
        return self.value_gain if self.shared else 1.0


class HostMap:
    """A map [B, C, N] as TensorRT lays it out; padding is NaN, or `INT8_POISON`.

    Attributes:
        layout: the strides.
        index: where each element lies in `memory`, [B, C, N].
        memory: flat, float16 or int8.
    """

    def __init__(self, values: NDArray[Any], form: str, kind: int = HALF) -> None:
        batch, channels, positions = values.shape
        self.layout = MapLayout.of(form, kind=kind, channels=channels, positions=positions)
        c, t = np.meshgrid(np.arange(channels), np.arange(positions), indexing="ij")
        inside = t * self.layout.token + c // 32 * self.layout.group + c % 32 * self.layout.channel
        self.index = np.arange(batch)[:, None, None] * self.layout.batch + inside
        poison = np.array(INT8_POISON, np.int8) if kind == INT8 else np.array([np.nan], np.float16)
        self.memory: NDArray[Any] = np.resize(poison, batch * self.layout.batch)
        self.memory[self.index] = values

    def map(self) -> Map:
        """Return the kernel's view of it."""
        view = self.layout.map(scale=INT8_SCALE if self.layout.kind == INT8 else 1.0)
        view.data = self.memory.ctypes.data
        return view

    def read(self) -> NDArray[Any]:
        """Return the values [B, C, N]."""
        values: NDArray[Any] = self.memory[self.index]
        return values

    def exact(self) -> NDArray[np.float64]:
        """Return what the kernel is to take these for: fp16, in float64, [B, C, 1, N]."""
        values = self.read()
        if self.layout.kind == INT8:
            values = (values.astype(np.float32) * np.float32(INT8_SCALE)).astype(np.float16)
        return values.astype(np.float64)[:, :, None, :]


@dataclass(frozen=True)
class HostMaps:
    """The maps of a case; `k` and `v` are one object where they are one map, `y` is all NaN."""

    q: HostMap
    k: HostMap
    v: HostMap
    y: HostMap

    def reference(self, *, scale: float) -> NDArray[np.floating]:
        """Return the answer in float64, [B, dv, N]."""
        maps = (m.exact() for m in (self.q, self.k, self.v))
        return cross_layer_attention(*maps, scale=scale)[:, :, 0, :]

    def error(self, *, scale: float) -> float:
        """Return the largest error of y as a share of the largest value; NaN is infinite."""
        difference = np.abs(self.y.read().astype(np.float64) - self.reference(scale=scale))
        return float(np.nan_to_num(difference / np.abs(self.v.exact()).max(), nan=np.inf).max())


def draw(case: Case) -> HostMaps:
    """Draw the maps of a case by its seed."""
    generator = np.random.default_rng(case.seed)

    def one(which: int, channels: int, positions: int, gain: float) -> HostMap:
        values = gain * generator.standard_normal((case.batch, channels, positions))
        form, kind = case.forms[which], case.kinds[which]
        if kind == INT8:
            steps = np.clip(np.rint(values / INT8_SCALE), -128, 127)
            return HostMap(steps.astype(np.int8), form, kind)
        return HostMap(values.astype(np.float16), form, kind)

    q = one(0, case.d, case.queries, case.gain)
    k = one(1, case.d, case.keys, case.key_gain)
    v = k if case.shared else one(2, case.dv, case.keys, case.value_gain)
    empty = np.full((case.batch, case.dv, case.queries), np.nan, np.float16)
    return HostMaps(q, k, v, HostMap(empty, case.form_out))
