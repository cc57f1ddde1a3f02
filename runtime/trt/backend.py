"""The backends `tensorrt` and `tensorrt-rtx`.

They find or build the engine of a variant, check it on this device, and open it.
"""

from __future__ import annotations

import importlib
import re
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from finedge.runtime.backend import NoTaps, SessionInfo, SessionOptions, pick_file
from finedge.runtime.cuda.binding import Cuda, binding
from finedge.runtime.cuda.gpu import Gpu, gpu, require_gpu, why_no_gpu
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.trt import library as libraries
from finedge.runtime.trt.build import builder
from finedge.runtime.trt.build.options import FILES, BuildOptions, Precision, board_name
from finedge.runtime.trt.build.store import EngineStore
from finedge.runtime.trt.choose import (
    choose_input_memory_once,
    recorded_input_memory,
    replay_once,
    stored_engine,
)
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.segments import AllSegments, TensorRtSegment, check_chain
from finedge.runtime.trt.session import open_session
from finedge.runtime.trt.timing import batch_milliseconds

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.runtime.trt.build.store import StoredEngine
    from finedge.runtime.trt.session import TensorRtSession


@dataclass(frozen=True)
class TensorRtBackend:
    """Runs engines of TensorRT 10.3 and later. The session options concern CPUs: no effect here."""

    options: SessionOptions = field(default_factory=SessionOptions)
    name: str = field(default="tensorrt", init=False)

    def why_not(self) -> str | None:
        """Return why it cannot run here: the package, the driver, or this GPU."""
        module = libraries.MODULES[self.name][0]
        if not is_installed(module):
            return libraries.why_not(self.name)
        # The libraries are large: they are loaded only where there is a GPU.
        device = gpu()
        if device is None:
            return why_no_gpu()
        reason = libraries.why_not_driver(module, device.driver) or libraries.why_not(self.name)
        return reason or why_not_gpu(module, device)

    def open(self, bundle: Bundle, *, variant: str) -> TensorRtSession:
        """Open the engine of a variant; it is built now if no stored one fits.

        The first time on a device the golden frame is replayed, and an integrated GPU times both
        memories for its input. `info.file` is the engine,
        `info.source` the bundle's file that it was built from.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks it.
            SystemProblem: the engine cannot be built or loaded here.
            GateError: its answer to the golden frame differs from that of its file.
        """
        engine, device = self._engine(bundle, variant), require_gpu()
        session = self.open_engine(bundle, engine)
        try:
            engine = choose_input_memory_once(session, bundle, engine=engine, gpu=device)
            replay_once(session, bundle, engine=engine, variant=variant, gpu=device)
        except BaseException:
            session.close()
            raise
        return session

    def engines(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the GPU with its driver, the library, and the name of every stored engine."""
        device, library = require_gpu(), libraries.load_library(self.name)
        names = sorted({engine.path.name for engine in EngineStore.of(bundle)})
        machine = f"{board_name(device)}, driver {device.driver}, {library.name} {library.version}"
        return (machine, *names)

    def built_variants(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the variants of which a stored engine runs on this GPU."""
        library, device = libraries.load_library(self.name), require_gpu()
        return tuple(
            variant
            for variant in bundle.variants()
            if FILES[cast("Precision", variant)] in bundle.files
            and stored_engine(
                bundle, BuildOptions(cast("Precision", variant)), library=library, gpu=device
            )
        )

    def open_with_taps(self, bundle: Bundle) -> TensorRtSession:
        """Open the engine of the float model that shows the bundle's taps as `tap/NAME`.

        Raises:
            NoTaps: no such engine was built for this device.
        """
        options = BuildOptions("fp32", debug_taps=True)
        library = libraries.load_library(self.name)
        engine = stored_engine(bundle, options, library=library, gpu=require_gpu())
        if engine is None:
            command = f"finedge build {bundle.path} --backend {self.name}"
            raise NoTaps(
                f"no {self.name} engine of {bundle.path} for this device shows feature maps",
                fix=f"{command} --precision fp32 --debug-taps",
            )
        return self.open_engine(bundle, engine)

    def open_engine(self, bundle: Bundle, engine: StoredEngine) -> TensorRtSession:
        """Open a stored engine of the bundle as it is, after a check of its digest."""
        precision, device = engine.key.precision, require_gpu()
        info = SessionInfo(
            self.name,
            device.name,
            engine.path.name,
            precision,
            source=FILES[precision],
            path=engine.path,
        )
        return open_session(
            engine.read(),
            bundle,
            library=libraries.load_library(self.name),
            info=info,
            plugin=bool(engine.key.plugin),
            input_memory=recorded_input_memory(engine, device),
        )

    def open_segments(
        self, bundle: Bundle, *, variant: str
    ) -> tuple[tuple[TensorRtSegment, ...], SessionInfo]:
        """Open the engine of each segment of a variant (`finedge.runtime.early_exit`).

        They are built now if none is stored. The first time on a device the golden frame is
        replayed through all of them. It was not run on hardware.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks a segment, or engines do not follow one another.
            SystemProblem: an engine cannot be built or loaded here.
            GateError: the answer to the golden frame differs from that of the whole file.
        """
        count, device = bundle.export.segments.count, require_gpu()
        stored = [self._engine(bundle, variant, segment=k) for k in range(count)]
        library, files = libraries.load_library(self.name), [one.path.name for one in stored]
        if any(one.key.plugin for one in stored):
            from finedge.runtime.trt.plugin.register import register

            register(library.trt)  # before deserialising: the engine looks for it by name
        engines = [
            Engine.load(one.read(), trt=library.trt, file=file)
            for one, file in zip(stored, files, strict=True)
        ]
        check_chain(engines, bundle.spec, files=files)
        versions = {library.trt.__name__: library.version, "driver": device.driver}
        info = SessionInfo(
            self.name,
            device.name,
            files[0],
            variant,
            versions=versions,
            source=FILES[variant],
            path=stored[0].path,
        )
        with ExitStack() as stack:
            opened = tuple(
                stack.enter_context(closing(_segment(engine, name=file, device=device)))
                for engine, file in zip(engines, files, strict=True)
            )
            whole = AllSegments(opened, bundle.spec, info)
            replay_once(whole, bundle, engine=stored[-1], variant=variant, gpu=device)
            stack.pop_all()
        return opened, info

    def _engine(self, bundle: Bundle, variant: str, *, segment: int | None = None) -> StoredEngine:
        # The CPU form of INT8 has unsigned activations, which TensorRT's parser refuses.
        order = (FILES[variant],) if variant in FILES else None
        pick_file(bundle, variant, order=order)
        library = libraries.load_library(self.name)
        options = BuildOptions(cast("Precision", variant), segment=segment)
        engine = stored_engine(bundle, options, library=library, gpu=require_gpu())
        if engine is not None:
            return engine
        timer = batch_milliseconds if segment is None else None
        return builder.engine_for(bundle, options, library=library, timer=timer)


@dataclass(frozen=True)
class RtxBackend(TensorRtBackend):
    """Runs engines of TensorRT for RTX, the library for GeForce and RTX cards."""

    name: str = field(default="tensorrt-rtx", init=False)


def _segment(engine: Engine, *, name: str, device: Gpu) -> TensorRtSegment:
    return TensorRtSegment(engine, cuda=Cuda(binding()), mapped=device.integrated, name=name)


def why_not_gpu(module: str, device: Gpu) -> str | None:
    """Return why a library will not run on this GPU although the driver is there, or None.

    TensorRT for RTX lists the compute capabilities that it supports; TensorRT does not.
    """
    enum: Any = getattr(importlib.import_module(module), "ComputeCapability", None)
    if enum is None:
        return None
    members = (re.fullmatch(r"SM(\d+)(\d)", name) for name in enum.__members__)
    supported = sorted((int(m[1]), int(m[2])) for m in members if m)
    capabilities = [f"{major}.{minor}" for major, minor in supported]
    if device.compute_capability in capabilities:
        return None
    return (
        f"{module} runs on compute capability {', '.join(capabilities)}, "
        f"{device.name} has {device.compute_capability}: use backend tensorrt"
    )
