"""The backends `tensorrt` and `tensorrt-rtx`: find or build the engine of a variant, check it on this device, open it."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from finedge.bundle import PORTABLE_FILE, VARIANTS, Bundle
from finedge.errors import BackendMissing
from finedge.runtime.backend import NoTaps, SessionInfo, SessionOptions, pick_file
from finedge.runtime.trt.cuda import Cuda, Gpu, binding, gpu, why_no_gpu

if TYPE_CHECKING:
    from finedge.runtime.trt.build.options import Precision
    from finedge.runtime.trt.build.store import Found
    from finedge.runtime.trt.library import TrtLibrary
    from finedge.runtime.trt.session import TensorRtSession

# The CPU form of INT8 has unsigned activations, which TensorRT's parser refuses.
ORDER = {**VARIANTS, "int8": (PORTABLE_FILE,)}


@dataclass(frozen=True)
class TensorRtBackend:
    """Runs engines of TensorRT 10.3 and later. The session options are about CPUs and change nothing here."""

    options: SessionOptions = field(default_factory=SessionOptions)
    name: str = field(default="tensorrt", init=False)

    def why_not(self) -> str | None:
        """Return why it cannot run here: the package, the driver, or this GPU."""
        from finedge.runtime.trt.library import MODULES, why_not

        library = MODULES[self.name][0]
        if importlib.util.find_spec(library) is None:
            return why_not(self.name)
        return (
            why_no_gpu() or why_not(self.name) or not_this_gpu(library, gpu())
        )  # the libraries are large: loaded where there is a GPU only

    def open(self, bundle: Bundle, *, variant: str) -> TensorRtSession:
        """Open the engine of a variant, built now if there is none that fits; the first time on a device the golden frame is replayed.

        `info.file` is the engine, `info.source` the bundle's file that it was built from.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks it.
            SystemProblem: the engine cannot be built or loaded here.
            GateError: it answers the golden frame otherwise than its file did.
        """
        from finedge.runtime.trt.replay import replay_once

        engine = self._engine(bundle, variant)
        session = self.open_engine(bundle, engine)
        try:
            replay_once(session, bundle, engine=engine, variant=variant, gpu=_gpu())
        except BaseException:
            session.close()
            raise
        return session

    def open_with_taps(self, bundle: Bundle) -> TensorRtSession:
        """Open the engine of the float model that shows the bundle's taps as `tap/NAME`.

        Raises:
            NoTaps: no such engine was built for this device.
        """
        from finedge.runtime.trt.build.options import BuildOptions
        from finedge.runtime.trt.choose import stored_engine
        from finedge.runtime.trt.library import load_library

        engine = stored_engine(
            bundle,
            BuildOptions("fp32", debug_taps=True),
            library=load_library(self.name),
            here=_gpu(),
        )
        if engine is None:
            raise NoTaps(
                "no engine here shows feature maps",
                fix=f"finedge build {bundle.path} --backend {self.name} --precision fp32 --debug-taps",
            )
        return self.open_engine(bundle, engine)

    def open_engine(self, bundle: Bundle, engine: Found) -> TensorRtSession:
        """Open an engine of the bundle as it is; its bytes are held against their digest first."""
        from finedge.runtime.trt.build.options import FILES
        from finedge.runtime.trt.library import load_library

        precision = engine.key.precision
        info = SessionInfo(
            self.name,
            _gpu().name,
            engine.path.name,
            precision,
            source=FILES[precision],
            path=engine.path,
        )
        return open_session(
            engine.read(),
            bundle,
            library=load_library(self.name),
            info=info,
            plugin=bool(engine.key.plugin),
        )

    def _engine(self, bundle: Bundle, variant: str) -> Found:
        from finedge.runtime.trt.build.builder import engine_for
        from finedge.runtime.trt.build.options import BuildOptions
        from finedge.runtime.trt.choose import stored_engine
        from finedge.runtime.trt.library import load_library

        pick_file(bundle, variant, order=ORDER.get(variant))
        ours, options = load_library(self.name), BuildOptions(cast("Precision", variant))
        return stored_engine(bundle, options, library=ours, here=_gpu()) or engine_for(
            bundle, options, library=ours
        )


@dataclass(frozen=True)
class RtxBackend(TensorRtBackend):
    """Runs engines of TensorRT for RTX, the library for GeForce and RTX cards."""

    name: str = field(default="tensorrt-rtx", init=False)


def open_session(
    data: bytes, bundle: Bundle, *, library: TrtLibrary, info: SessionInfo, plugin: bool = False
) -> TensorRtSession:
    """Make a session of an engine's bytes on this machine's GPU; `plugin` says that our plugin is in it.

    Raises:
        BackendMissing: no GPU is usable here.
        SystemProblem: the library will not run the engine, or memory is short.
        BundleError: its input or outputs are not the bundle's.
    """
    from finedge.runtime.trt.engine import Engine
    from finedge.runtime.trt.session import TensorRtSession

    here = _gpu()
    if plugin:
        from finedge.runtime.trt.plugin.cross_layer_attention import register

        register(library.trt)  # before deserialising: the engine asks for it by name
    engine = Engine.load(data, trt=library.trt, file=info.file)
    engine.check(bundle, file=info.file)
    versions = {library.trt.__name__: library.version, "driver": here.driver}
    return TensorRtSession(
        engine,
        bundle.spec,
        info=replace(info, versions=versions),
        cuda=Cuda(binding()),
        mapped=here.integrated,
    )


def not_this_gpu(module: str, here: Gpu | None) -> str | None:
    """Return why a library will not run on this GPU although the driver is there: TensorRT for RTX lists what it takes."""
    listed: Any = getattr(importlib.import_module(module), "ComputeCapability", None)
    if listed is None or here is None:
        return None
    known = sorted(float(f"{n[2:-1]}.{n[-1]}") for n in listed.__members__ if n.startswith("SM"))
    if float(here.compute_capability) in known:
        return None
    return f"{module} runs on compute capability {', '.join(map(str, known))}, {here.name} has {here.compute_capability}: use backend tensorrt"


def _gpu() -> Gpu:
    here = gpu()
    if here is None:
        raise BackendMissing(f"an engine cannot run here: {why_no_gpu()}")
    return here
