"""The arithmetic of a launch of the cross-layer attention kernel: strides, kernel choice, splits over the keys, workspace.

Pure numbers: no CUDA, no TensorRT. The C++ shell (`jetson/plugin/`) repeats it; both are held against `tests/runtime/trt/plugin/plans.json`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from finedge.errors import UsageError

QUERY_TILE = 16  # queries of a block
KEY_TILE = 32  # keys that a block takes at once
THREADS = 128
HALF, INT8 = 0, 1  # Map.kind
# A combine block reads every split of its query, and the workspace grows with them.
MAX_SPLITS = 32
# The workspace is sized where the engine is built; with this many multiprocessors at most taken into account, it is enough wherever it runs.
MAX_PROCESSORS = 192
DECOMPOSED = "build with --attention decomposed"


class Map(ctypes.Structure):
    """A feature map as the kernel reads it; the strides count elements. Mirrors `struct Map` of the .cu file."""

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


class Problem(ctypes.Structure):
    """The only parameter of every kernel, passed by value (200 bytes). Mirrors `struct Problem` of the .cu file."""

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
class Layout:
    """How TensorRT lays a map [B, C, H, W] out.

    Element (t, c) of image b, t = h W + w, is at `b * batch + t * token + c // 32 * group + c % 32 * channel`.
    """

    batch: int
    token: int
    group: int
    channel: int
    kind: int

    @classmethod
    def of(cls, form: str, *, kind: int, channels: int, positions: int) -> Layout:
        """Return the layout of a map with `channels` channels and `positions` = H W, in the TensorFormat named `form`.

        HWC8 and CHW32 pad the channels to 8 and to 32; HWC has no padding.

        Raises:
            UsageError: the kernel does not read that format in that type.
        """
        if not is_readable(form, kind=kind, channels=channels, positions=positions):
            known = ", ".join(f"{name} {('FP16', 'INT8')[k]}" for name, k in FORMATS)
            raise UsageError(
                f"{channels} channels of {positions} positions in format {form}, kind {kind}",
                expected=known,
                fix=DECOMPOSED,
            )
        if form in ("HWC8", "HWC"):
            padded = _ceil(channels, 8) * 8
            return cls(padded * positions, padded, 32, 1, kind)
        if form == "CHW32":
            return cls(_ceil(channels, 32) * 32 * positions, 32, 32 * positions, 1, kind)
        return cls(channels * positions, 1, 32 * positions, positions, kind)

    def map(self, *, scale: float = 1.0) -> Map:
        """Return the Map without its address; `scale` is what one step of an INT8 map is worth."""
        return Map(None, self.batch, self.token, self.group, self.channel, scale, self.kind, 0)


# What the kernel reads, the best first: where the channels of a position lie together it loads 16 bytes at a time, LINEAR goes element by element.
FORMATS = (("HWC", HALF), ("HWC8", HALF), ("LINEAR", HALF), ("CHW32", INT8), ("LINEAR", INT8))


def is_readable(form: str, *, kind: int, channels: int, positions: int) -> bool:
    """Tell whether the kernel reads (and, of kind `HALF`, writes) such a map.

    To the kernel neighbouring channels are a promise of whole groups of 8. HWC keeps it with a multiple of 8 channels only, and so does a
    linear map of one position.
    """
    promises = form == "HWC" or (form == "LINEAR" and positions == 1)
    return (form, kind) in FORMATS and not (promises and channels % 8)


@dataclass(frozen=True)
class Kernel:
    """A compiled head size: `size` channels at most; `shared_bytes` of dynamic shared memory a block."""

    name: str
    size: int
    shared_bytes: int


# Shared memory as the head of the .cu file counts it: 16 queries, 32 keys and 32 values, or keys and values in one.
SEPARATE = tuple(
    Kernel(f"cla_{size}", size, 160 * (size + 8) + 1536) for size in (64, 128, 256, 512)
)
SHARED = tuple(Kernel(f"cla_shared_{size}", size, 96 * (size + 8) + 1536) for size in (512, 1024))
COMBINE = "cla_combine"


@dataclass(frozen=True)
class Launch:
    """One launch. With `splits` > 1 `workspace_bytes` hold the partial results, and `COMBINE` follows on `combine_grid` with the same block."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    splits: int
    workspace_bytes: int
    combine_grid: tuple[int, int, int] | None


def kernel_for(*, d: int, dv: int, shared: bool) -> Kernel:
    """Return the kernel for queries and keys of `d` channels and values of `dv`; `shared`: keys and values are one map.

    A shared map of at most 256 channels is read as two: both tiles fit, and the kernel without the detour is smaller.

    Raises:
        UsageError: more channels than any kernel holds.
    """
    wanted = max(d, dv)
    family = SHARED if shared and wanted > 256 else SEPARATE
    fitting = [k for k in family if k.size >= wanted]
    if fitting:
        return fitting[0]
    form = "with keys and values in one map" if shared else "with separate keys and values"
    raise UsageError(
        f"cross-layer attention over {wanted} channels {form}",
        expected=f"at most {family[-1].size} in the plugin",
        fix=DECOMPOSED,
    )


def plan(
    *, queries: int, keys: int, d: int, dv: int, shared: bool, batch: int, processors: int
) -> Launch:
    """Return how to launch: one block takes 16 queries of one image and one range of keys.

    The keys are split until there are two blocks a multiprocessor, but into no more than 32 ranges, and each range is a whole
    number of 32-key tiles and not empty.

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
    wanted = max(1, min(tiles, MAX_SPLITS, 2 * min(processors, MAX_PROCESSORS) // blocks))
    splits = _ceil(tiles, _ceil(tiles, wanted))
    workspace, combine = (
        (batch * splits * queries * _row_bytes(dv), (queries, 1, batch))
        if splits > 1
        else (0, None)
    )
    grid = (_ceil(queries, QUERY_TILE), splits, batch)
    return Launch(
        kernel.name, grid, (THREADS, 1, 1), kernel.shared_bytes, splits, workspace, combine
    )


def workspace_bound(*, queries: int, keys: int, dv: int, batch: int) -> int:
    """Return the bytes that are enough for these and all smaller shapes on every GPU.

    A smaller batch can need more than the largest, because it is split and the largest is not. With s > 1 splits there are at
    most 2 `MAX_PROCESSORS` blocks of 16 queries; and there are never more than `MAX_SPLITS` splits.
    """
    splits = min(_ceil(keys, KEY_TILE), MAX_SPLITS)
    rows = min(batch * queries * splits, 2 * MAX_PROCESSORS * QUERY_TILE) if splits > 1 else 0
    return rows * _row_bytes(dv)


def _row_bytes(dv: int) -> int:
    return (dv + 2) * ctypes.sizeof(
        ctypes.c_float
    )  # the values not yet normalised, the maximum, the sum


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
