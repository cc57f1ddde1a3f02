"""What a user may choose about an engine: precision, attention, target GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from finedge.bundle import FLOAT_FILE, HALF_FILE, PORTABLE_FILE
from finedge.early_exit import segment_file
from finedge.errors import BackendMissing, UsageError, nearest
from finedge.runtime.batch_profile import Profile
from finedge.runtime.cuda.gpu import Gpu, gpu, why_no_gpu
from finedge.runtime.trt.build.key import PORTABLE
from finedge.runtime.trt.library import TrtLibrary

Precision = Literal["fp32", "fp16", "int8", "int8-fp32"]
AttentionOption = Literal["auto", "decomposed", "plugin"]
Typing = Literal["strong", "weak"]

# Precision -> the bundle's file that TensorRT is given. `int8` computes in float16 what is not
# quantised, `int8-fp32` in float32.
FILES: dict[str, str] = {
    "fp32": FLOAT_FILE,
    "fp16": HALF_FILE,
    "int8": PORTABLE_FILE,
    "int8-fp32": PORTABLE_FILE,
}
LOCAL = ("local",)
# The GPUs that a portable engine covers, by the documents of TensorRT for RTX.
PORTABLE_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")
MAX_WORKSPACE_MIB = 1 << 20  # 1 TiB
PLUGIN_NEEDS = "fp16 or int8: the plugin's kernel takes float16"


@dataclass(frozen=True)
class BuildOptions:
    """How one engine is built.

    Attributes:
        precision: what it computes in; the file is `FILES[precision]`.
        attention: how cross-layer attention is computed: from standard ops by TensorRT
            (decomposed), by our plugin, or by the better of both (auto).
        profile: the batch sizes.
        workspace_mib: scratch memory a layer may use, in MiB.
        targets: `("local",)`, or compute capabilities such as `("sm86", "sm89")` (TensorRT for RTX
            only).
        typing: `strong` takes types from the graph; `weak` lets TensorRT before 10.12 choose by
            flags.
        debug_taps: the bundle's taps become outputs `tap/NAME`.
        segment: the segment of the model that is built; None is the whole model.
    """

    precision: Precision = "fp16"
    attention: AttentionOption = "auto"
    profile: Profile = field(default_factory=Profile)
    workspace_mib: int = 1024
    targets: tuple[str, ...] = LOCAL
    typing: Typing = "strong"
    debug_taps: bool = False
    segment: int | None = None

    def __post_init__(self) -> None:
        _check_member("precision", self.precision, get_args(Precision))
        _check_member("attention", self.attention, get_args(AttentionOption))
        _check_member("typing", self.typing, get_args(Typing))
        if not 1 <= self.workspace_mib <= MAX_WORKSPACE_MIB:
            raise UsageError(
                f"workspace of {self.workspace_mib} MiB",
                expected=f"1 to {MAX_WORKSPACE_MIB}",
                fix="--workspace-mib 1024",
            )
        if self.attention == "plugin" and not self.plugin_fits:
            raise UsageError(
                f"--attention plugin with precision {self.precision}",
                expected=PLUGIN_NEEDS,
                fix="--attention decomposed, or --precision fp16",
            )

    @property
    def file(self) -> str:
        """The bundle's file that it is built from."""
        whole = FILES[self.precision]
        return whole if self.segment is None else segment_file(whole, self.segment)

    @property
    def plugin_fits(self) -> bool:
        """Whether the plugin's kernel, which takes float16, can be in this engine."""
        return self.precision in ("fp16", "int8")


@dataclass(frozen=True)
class BuildTarget:
    """The GPU that an engine is for.

    Attributes:
        gpu: the board (`board_name`), the targets (`sm86+sm89`), or `portable`; part of the key.
        compute_capability: like "8.7", the targets, or `portable`; part of the key.
        capabilities: members of the library's ComputeCapability; empty leaves its default.
        local_gpu: this machine's GPU, or None where the engine is for another machine.
    """

    gpu: str
    compute_capability: str
    capabilities: tuple[str, ...] = ()
    local_gpu: Gpu | None = None

    @classmethod
    def of(cls, device: Gpu, capabilities: tuple[str, ...] = ()) -> BuildTarget:
        """Return the target that this machine's GPU is."""
        return cls(board_name(device), device.compute_capability, capabilities, device)


def board_name(device: Gpu) -> str:
    """Return the GPU's name with what tells boards of that name apart: `Orin (8SM, 8GiB)`.

    Every Jetson of a generation has the same name and compute capability: an Orin Nano of 4 GB has
    4 multiprocessors, one of 8 GB and both Orin NX have 8, an AGX Orin has 14 or 16. Kernels are
    chosen, and grids planned, for their number. The memory is counted where it is the CPU's too. A
    kernel that finds no room for its scratch memory is not chosen, even below the workspace limit.
    And an engine of the larger board may not fit the smaller. It is rounded up to a power of two,
    because what the system keeps for itself varies. A discrete GPU's name differs with its memory.
    """
    facts = f"{device.processors}SM"
    if device.integrated:
        gibibytes = max(1, math.ceil(device.memory_mib / 1024))
        facts += f", {1 << (gibibytes - 1).bit_length()}GiB"
    return f"{device.name} ({facts})"


def build_target(names: tuple[str, ...], *, library: TrtLibrary) -> BuildTarget:
    """Resolve `("local",)` or names such as `("sm86", "sm89")`.

    Raises:
        BackendMissing: TensorRT builds on the GPU that the engine is for, and there is none.
        UsageError: the library builds for no such target.
    """
    if names != LOCAL:
        return _named_target(names, library)
    device = gpu()
    if device:
        capabilities = ("CURRENT",) if library.is_rtx else ()
        return BuildTarget.of(device, capabilities)
    if library.is_rtx:
        return BuildTarget(PORTABLE, PORTABLE)
    reason = why_no_gpu() or "there is none"
    raise BackendMissing(
        f"{library.name} {library.version} builds on the GPU it is for, and {reason}",
        fix="build on the device, or use --backend tensorrt-rtx, which needs no GPU to build",
    )


def _named_target(names: tuple[str, ...], library: TrtLibrary) -> BuildTarget:
    enum = getattr(library.trt, "ComputeCapability", None)
    if enum is None:
        raise UsageError(
            f"--target {','.join(names)} with {library.name} {library.version}",
            expected="local: this library builds for the GPU it runs on",
            fix="build on the device, or use --backend tensorrt-rtx",
        )
    members = {name.lower(): name for name in enum.__members__ if name not in ("NONE", "CURRENT")}
    unknown = next((name for name in names if name.lower() not in members), None)
    if unknown is not None:
        raise UsageError(
            f"{library.name} {library.version} has no target '{unknown}'",
            expected=f"local, or of these: {nearest(unknown.lower(), members)}",
        )
    sorted_names = sorted({name.lower() for name in names})
    label = "+".join(sorted_names)
    return BuildTarget(label, label, tuple(members[name] for name in sorted_names))


def _check_member(name: str, value: str, members: tuple[str, ...]) -> None:
    if value not in members:
        raise UsageError(f"unknown {name} '{value}'", expected=nearest(value, members))
