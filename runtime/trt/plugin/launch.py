"""The arithmetic of a launch of the attention kernel: strides, kernel, grid, workspace.

Pure numbers: no CUDA, no TensorRT. The C++ plugin (`jetson/plugin/`) repeats it; both are compared
with `tests/runtime/trt/plugin/plans.json`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from finedge.errors import UsageError
from finedge.runtime.trt.plugin.splits import (
    MAX_SPLITS,
    MAX_WORKSPACE,
    Workload,
    best_splits,
    ceil_div,
    row_bytes,
)

HALF, INT8 = 0, 1  # Map.kind
DECOMPOSED = "build with --attention decomposed"


class Map(ctypes.Structure):
    """A feature map as the kernel reads it; strides count elements.

    Mirrors `struct Map` of the .cu file.
    """

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_longlong),
        ("token", ctypes.c_int),
        ("group", ctypes.c_int),
        ("channel", ctypes.c_int),
        ("scale", ctypes.c_float),
        ("kind", ctypes.c_int),
        ("pad", ctypes.c_int),
    ]


class AttentionShape(ctypes.Structure):
    """The maps and sizes of one attention, and the only parameter of every kernel.

    Passed by value (200 bytes). Mirrors `struct Problem` of the .cu file.
    """

    _fields_ = [
        ("q", Map),
        ("k", Map),
        ("v", Map),
        ("y", Map),
        ("partial", ctypes.c_void_p),
        ("queries", ctypes.c_int),
        ("keys", ctypes.c_int),
        ("d", ctypes.c_int),
        ("dv", ctypes.c_int),
        ("splits", ctypes.c_int),
        ("batch", ctypes.c_int),
        ("scale", ctypes.c_float),
        ("pad", ctypes.c_int),
    ]


@dataclass(frozen=True)
class MapLayout:
    """How TensorRT lays out a map [B, C, H, W] in memory.

    Element (t, c) of image b, t = h W + w, is at
    `b * batch + t * token + c // 32 * group + c % 32 * channel`.
    """

    batch: int
    token: int
    group: int
    channel: int
    kind: int

    @classmethod
    def of(cls, form: str, *, kind: int, channels: int, positions: int) -> MapLayout:
        """Return the layout of a map with `channels` channels and `positions` = H W.

        `form` is the name of a TensorFormat.

        HWC8 and CHW32 pad the channels to 8 and to 32; HWC has no padding.

        Raises:
            UsageError: the kernel does not read that format in that type.
        """
        if not is_readable(form, kind=kind, channels=channels, positions=positions):
            formats = ", ".join(f"{name} {('FP16', 'INT8')[k]}" for name, k in FORMATS)
            raise UsageError(
                f"{channels} channels of {positions} positions in format {form}, kind {kind}",
                expected=formats,
                fix=DECOMPOSED,
            )
        if form in ("HWC8", "HWC"):
            padded = ceil_div(channels, 8) * 8
            return cls(padded * positions, padded, 32, 1, kind)
        if form == "CHW32":
            return cls(ceil_div(channels, 32) * 32 * positions, 32, 32 * positions, 1, kind)
        return cls(channels * positions, 1, 32 * positions, positions, kind)

    def map(self, *, scale: float = 1.0) -> Map:
        """Return the Map without its address; `scale` is the size of one INT8 step."""
        return Map(None, self.batch, self.token, self.group, self.channel, scale, self.kind, 0)


# The formats that the kernel reads, the fastest first. Where the channels of a position are
# neighbours it loads 16 bytes at a time; LINEAR is read element by element.
FORMATS = (("HWC", HALF), ("HWC8", HALF), ("LINEAR", HALF), ("CHW32", INT8), ("LINEAR", INT8))


def is_readable(form: str, *, kind: int, channels: int, positions: int) -> bool:
    """Tell whether the kernel reads (and, of kind `HALF`, writes) such a map.

    Where channels are neighbours, the kernel relies on whole groups of 8. HWC has them only with a
    multiple of 8 channels, and so has a linear map of one position.
    """
    promises = form == "HWC" or (form == "LINEAR" and positions == 1)
    return (form, kind) in FORMATS and not (promises and channels % 8)


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel for heads of at most `size` channels, and its tile.

    Args:
        name: of the function in the image.
        size: the most channels of queries, keys and values.
        queries: queries that a block computes.
        keys: keys that a block reads at once.
        threads: threads of a block.
        shared_bytes: dynamic shared memory of a block, as the head of the .cu file counts it.
        resident: the most blocks that fit a multiprocessor of any GPU, by its 65,536 registers and
            at most 228 KB of shared memory. A launch asks the driver.
        tile_ns: nanoseconds of a tile of keys, for a block alone on a multiprocessor of an H200.
            Where nobody measured it: 400 for barriers and softmax, and queries x keys x size / 1000
            for the products, at half of the rate of its tensor cores.
    """

    name: str
    size: int
    queries: int
    keys: int
    threads: int
    shared_bytes: int
    resident: int
    tile_ns: int


# No `tile_ns` is measured yet.
SEPARATE = (
    Kernel("cla_64", 64, 32, 32, 128, 15_616, 3, 465),
    Kernel("cla_128", 128, 32, 32, 128, 23_808, 3, 531),
    Kernel("cla_256", 256, 32, 32, 128, 44_288, 2, 662),
    Kernel("cla_512", 512, 32, 32, 256, 77_056, 1, 924),
)
SHARED = (
    Kernel("cla_shared_512", 512, 32, 32, 256, 77_056, 1, 924),
    Kernel("cla_shared_1024", 1024, 32, 16, 256, 83_712, 1, 924),
)
COMBINE, COMBINE_BLOCK = "cla_combine", (128, 1, 1)


@dataclass(frozen=True)
class Launch:
    """One launch.

    With `splits` > 1 the workspace (`workspace_bytes`) holds the partial results, and the kernel
    `COMBINE` follows on `combine_grid` with `COMBINE_BLOCK`.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    splits: int
    workspace_bytes: int
    combine_grid: tuple[int, int, int] | None


def kernel_for(*, d: int, dv: int, shared: bool) -> Kernel:
    """Return the kernel for queries and keys of `d` channels and values of `dv`.

    `shared`: keys and values are one map. A shared map of at most 256 channels is read as two: both
    tiles fit, and that kernel is smaller.

    Raises:
        UsageError: more channels than any kernel holds.
    """
    channels = max(d, dv)
    family = SHARED if shared and channels > 256 else SEPARATE
    kernel = next((kernel for kernel in family if kernel.size >= channels), None)
    if kernel:
        return kernel
    form = "with keys and values in one map" if shared else "with separate keys and values"
    raise UsageError(
        f"cross-layer attention over {channels} channels {form}",
        expected=f"at most {family[-1].size} in the plugin",
        fix=DECOMPOSED,
    )


def plan(
    *,
    queries: int,
    keys: int,
    d: int,
    dv: int,
    shared: bool,
    batch: int,
    processors: int,
    resident: int,
) -> Launch:
    """Return how to launch: one block computes a tile of queries of one image over some keys.

    The keys are split into as many ranges as `best_splits` says. Each range is a whole number of
    the kernel's key tiles and is not empty.

    Args:
        queries: Hq Wq.
        keys: Hk Wk.
        d: channels of queries and keys.
        dv: channels of values.
        shared: keys and values are one map.
        batch: images.
        processors: multiprocessors of the GPU.
        resident: blocks of `kernel_for` that fit a multiprocessor (`driver.Kernels.resident`).

    Raises:
        UsageError: no kernel holds that many channels.
    """
    kernel = kernel_for(d=d, dv=dv, shared=shared)
    rows = ceil_div(queries, kernel.queries)
    work = Workload(
        blocks=rows * batch,
        tiles=ceil_div(keys, kernel.keys),
        tile_ns=kernel.tile_ns,
        rows=queries * batch,
        dv=dv,
        processors=processors,
        resident=resident,
    )
    splits = best_splits(work)
    is_split = splits > 1
    return Launch(
        kernel=kernel.name,
        grid=(rows, splits, batch),
        block=(kernel.threads, 1, 1),
        shared_bytes=kernel.shared_bytes,
        splits=splits,
        workspace_bytes=splits * work.rows * row_bytes(dv) if is_split else 0,
        combine_grid=(queries, 1, batch) if is_split else None,
    )


def workspace_bound(*, queries: int, keys: int, d: int, dv: int, shared: bool, batch: int) -> int:
    """Return the bytes that are enough for these and all smaller shapes on every GPU.

    A smaller batch can need more than the largest, because it is split into more ranges. No launch
    takes more than `MAX_WORKSPACE`, on whatever GPU. With d = dv = 512: 21.5 MiB for 49 x 196 and
    batch 32, 12.3 MiB for 196 x 3136 and one image, 32 MiB for batch 32. For 49 x 196 with
    d = dv = 64 and 8 images it is 0.7 MiB.

    Raises:
        UsageError: no kernel holds that many channels.
    """
    tiles = ceil_div(keys, kernel_for(d=d, dv=dv, shared=shared).keys)
    splits = min(tiles, MAX_SPLITS)
    return min(splits * batch * queries * row_bytes(dv), MAX_WORKSPACE) if splits > 1 else 0
