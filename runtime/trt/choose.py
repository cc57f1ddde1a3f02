"""Which of the engines on disk a device may run: any that was built from these files for this GPU, also with a profile of the user's."""

from __future__ import annotations

from finedge.bundle import Bundle
from finedge.runtime.trt.build.candidate import candidates
from finedge.runtime.trt.build.key import PORTABLE, EngineKey
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.build.store import EngineStore, Found
from finedge.runtime.trt.build.target import PORTABLE_COVERS, Target
from finedge.runtime.trt.cuda import Gpu
from finedge.runtime.trt.library import TrtLibrary

# What a user may choose at `finedge build` without it becoming an engine of something else.
CHOICES = {"profile", "flags", "gpu", "compute_capability"}


def stored_engine(
    bundle: Bundle, options: BuildOptions, *, library: TrtLibrary, here: Gpu
) -> Found | None:
    """Return the newest stored engine that is this model at this precision, by this library, and runs on this GPU."""
    target = Target(here.name, here.compute_capability, (), here)
    wanted = [c.key for c in candidates(bundle, options, library=library, where=target)]
    fitting = [
        f
        for f in EngineStore.of(bundle)
        if runs_on(f.key, here) and any(is_variant(f.key, key) for key in wanted)
    ]
    return next(
        (
            f
            for f in sorted(fitting, key=lambda f: f.path.stat().st_mtime, reverse=True)
            if f.is_whole()
        ),
        None,
    )


def is_variant(found: EngineKey, wanted: EngineKey) -> bool:
    """Tell whether two keys differ in choices alone; what changes the graph, as taps do, is in its digest."""
    return set(found.differing(wanted)) <= CHOICES


def runs_on(key: EngineKey, here: Gpu) -> bool:
    """Tell whether an engine was built for this GPU: by its name, or by its compute capability (TensorRT for RTX)."""
    if (key.gpu, key.compute_capability) == (here.name, here.compute_capability):
        return True
    capability = f"sm{here.compute_capability.replace('.', '')}"
    return capability in (
        [c.lower() for c in PORTABLE_COVERS] if key.gpu == PORTABLE else key.gpu.split("+")
    )
