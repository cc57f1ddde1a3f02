"""What an engine is built for: the GPU at hand, named compute capabilities, or every GPU that TensorRT for RTX can take."""

from __future__ import annotations

from dataclasses import dataclass

from finedge.errors import BackendMissing, UsageError, nearest
from finedge.runtime.trt.build.key import PORTABLE
from finedge.runtime.trt.build.options import LOCAL
from finedge.runtime.trt.cuda import Gpu, gpu, why_no_gpu
from finedge.runtime.trt.library import TrtLibrary

# What the portable engine covers by the library's documents.
PORTABLE_COVERS = ("SM80", "SM86", "SM89", "SM120")


@dataclass(frozen=True)
class Target:
    """Where an engine is to run.

    Attributes:
        gpu: the GPU's name, the targets, or `portable`; part of the key.
        compute_capability: likewise.
        capabilities: members of the library's ComputeCapability; empty leaves its default.
        here: the GPU of this machine, or None where the engine is for another.
    """

    gpu: str
    compute_capability: str
    capabilities: tuple[str, ...] = ()
    here: Gpu | None = None


def target(names: tuple[str, ...], *, library: TrtLibrary) -> Target:
    """Resolve `("local",)` or names such as `("sm86", "sm89")`.

    Raises:
        BackendMissing: TensorRT builds on the GPU it is for, and there is none.
        UsageError: the library builds for no such target.
    """
    if names != LOCAL:
        return _named(names, library)
    here = gpu()
    if here:
        return Target(
            here.name, here.compute_capability, ("CURRENT",) if library.is_rtx else (), here
        )
    if library.is_rtx:
        return Target(PORTABLE, PORTABLE)
    what = f"{library.name} {library.version} builds on the GPU it is for, and {why_no_gpu() or 'there is none'}"
    raise BackendMissing(
        what, fix="build on the device, or use --backend tensorrt-rtx, which needs no GPU to build"
    )


def _named(names: tuple[str, ...], library: TrtLibrary) -> Target:
    enum = getattr(library.trt, "ComputeCapability", None)
    if enum is None:
        what = f"--target {','.join(names)} with {library.name} {library.version}"
        raise UsageError(
            what,
            expected="local: this library builds for the GPU it runs on",
            fix="build on the device, or use --backend tensorrt-rtx",
        )
    known = {n.lower(): n for n in enum.__members__ if n not in ("NONE", "CURRENT")}
    for name in names:
        if name.lower() not in known:
            raise UsageError(
                f"{library.name} {library.version} has no target '{name}'",
                expected=f"local, or of these: {nearest(name.lower(), known)}",
            )
    label = "+".join(sorted({n.lower() for n in names}))
    return Target(label, label, tuple(known[n] for n in label.split("+")))
