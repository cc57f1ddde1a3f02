"""The arithmetic of a launch of the attention kernel: strides, kernel, splits, workspace.

Pure numbers: no CUDA, no TensorRT. The C++ plugin (`jetson/plugin/`) repeats it; both are compared
with `tests/runtime/trt/plugin/plans.json`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from finedge.errors import UsageError

QUERY_TILE = 16  # queries per block
KEY_TILE = 32  # keys that a block reads at once
THREADS = 128
HALF, INT8 = 0, 1  # Map.kind
# A combine block reads every split of its query, and the workspace grows with them.
MAX_SPLITS = 32
# The workspace is sized where the engine is built. A launch counts at most this many
# multiprocessors, so the workspace is enough wherever the engine runs.
MAX_PROCESSORS = 192
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
            padded = _ceil(channels, 8) * 8
            return cls(padded * positions, padded, 32, 1, kind)
        if form == "CHW32":
            return cls(_ceil(channels, 32) * 32 * positions, 32, 32 * positions, 1, kind)
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
    """A compiled kernel for heads of at most `size` channels.

    It needs `shared_bytes` of dynamic shared memory per block.
    """

    name: str
    size: int
    shared_bytes: int


# Shared memory as the head of the .cu file counts it: 16 queries, 32 keys and 32 values, or one map
# of 32 keys that are the values too.
SEPARATE = tuple(
    Kernel(f"cla_{size}", size, 160 * (size + 8) + 1536) for size in (64, 128, 256, 512)
)
SHARED = tuple(Kernel(f"cla_shared_{size}", size, 96 * (size + 8) + 1536) for size in (512, 1024))
COMBINE = "cla_combine"


@dataclass(frozen=True)
class Launch:
    """One launch.

    With `splits` > 1 the workspace (`workspace_bytes`) holds the partial results, and the kernel
    `COMBINE` follows on `combine_grid` with the same block.
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
    *, queries: int, keys: int, d: int, dv: int, shared: bool, batch: int, processors: int
) -> Launch:
    """Return how to launch: one block computes 16 queries of one image over one range of keys.

    The keys are split until there are two blocks per multiprocessor, but into at most 32 ranges.
    Each range is a whole number of 32-key tiles and is not empty.

    Args:
        queries: Hq Wq.
        keys: Hk Wk.
        d: channels of queries and keys.
        dv: channels of values.
        shared: keys and values are one map.
        batch: images.
        processors: multiprocessors of the GPU.

    Raises:
        UsageError: no kernel holds that many channels.
    """
    kernel = kernel_for(d=d, dv=dv, shared=shared)
    blocks, tiles = _ceil(queries, QUERY_TILE) * batch, _ceil(keys, KEY_TILE)
    limit = max(1, min(tiles, MAX_SPLITS, 2 * min(processors, MAX_PROCESSORS) // blocks))
    splits = _ceil(tiles, _ceil(tiles, limit))
    is_split = splits > 1
    return Launch(
        kernel=kernel.name,
        grid=(_ceil(queries, QUERY_TILE), splits, batch),
        block=(THREADS, 1, 1),
        shared_bytes=kernel.shared_bytes,
        splits=splits,
        workspace_bytes=batch * splits * queries * _row_bytes(dv) if is_split else 0,
        combine_grid=(queries, 1, batch) if is_split else None,
    )


def workspace_bound(*, queries: int, keys: int, dv: int, batch: int) -> int:
    """Return the bytes that are enough for these and all smaller shapes on every GPU.

    A smaller batch can need more than the largest, because it is split and the largest is not. With
    s > 1 splits there are at most 2 `MAX_PROCESSORS` blocks of 16 queries. There are never more
    than `MAX_SPLITS` splits.
    """
    splits = min(_ceil(keys, KEY_TILE), MAX_SPLITS)
    rows = min(batch * queries * splits, 2 * MAX_PROCESSORS * QUERY_TILE) if splits > 1 else 0
    return rows * _row_bytes(dv)


def _row_bytes(dv: int) -> int:
    # The values that are not yet normalised, the maximum, and the sum.
    return (dv + 2) * ctypes.sizeof(ctypes.c_float)


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
