"""The ONNX Runtime backend: the CPU that every machine has."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finedge.bundle import CPU_FILE, FLOAT_FILE, PORTABLE_FILE, VARIANTS, Bundle
from finedge.early_exit import segment_file
from finedge.errors import SystemProblem
from finedge.graph.onnx_file import read_model, read_onnx
from finedge.graph.taps import with_taps
from finedge.runtime.backend import REDUCED_RANGE, SessionInfo, SessionOptions, pick_file
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.machine.packages import is_installed, package_version, reason_text
from finedge.runtime.ort.int8_products import PROVIDER, int8_products
from finedge.runtime.ort.segments import OnnxRuntimeSegment, open_segment
from finedge.runtime.ort.session import (
    OnnxRuntimeSession,
    check_io,
    open_model,
    session_settings,
)

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

NAME = "onnxruntime"
PACKAGES = ("onnxruntime", "onnx")
# The CPU form first: ONNX Runtime hardly fuses the portable one.
FILES = {**VARIANTS, "int8": (CPU_FILE, PORTABLE_FILE)}


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """Runs a bundle's ONNX files on the CPU."""

    options: SessionOptions = field(default_factory=SessionOptions)
    name: str = field(default=NAME, init=False)
    usual_variants: tuple[str, ...] = field(default=("fp32", "int8"), init=False)

    def why_not(self) -> str | None:
        """Return why it cannot run on this machine."""
        missing = [p for p in PACKAGES if not is_installed(p)]
        if missing:
            return f"needs {', '.join(missing)}: pip install finedge"
        try:
            for name in PACKAGES:
                package_version(name)
        except SystemProblem as error:
            return reason_text(error)
        return None

    def open(self, bundle: Bundle, *, variant: str) -> OnnxRuntimeSession:
        """Open a variant.

        `info.file` names the file. `info.precision` is `REDUCED_RANGE` where its weights were
        scaled, and `info.weight_scale` is by how much.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks it, or ONNX Runtime refuses the file.
            SystemProblem: ONNX Runtime chose another provider than the CPU.
        """
        file = pick_file(bundle, variant, order=FILES.get(variant))
        if variant == "int8" and file != CPU_FILE:
            log.warning(
                "%s holds no %s: %s runs instead. On a CPU it is slower than fp32. "
                "finedge calibrate writes the missing file.",
                bundle.path,
                CPU_FILE,
                file,
            )
        return self.open_file(bundle, file)

    def open_file(self, bundle: Bundle, file: str) -> OnnxRuntimeSession:
        """Open one file of the manifest by its name."""
        precision = file.split(".")[1]
        if precision == "int8" and self._saturates():
            return self.open_reduced(bundle, file)
        model = read_onnx(bundle.file(file))
        return self._start(model, bundle, SessionInfo(NAME, cpu_name(), file, precision))

    def open_reduced(self, bundle: Bundle, file: str = CPU_FILE) -> OnnxRuntimeSession:
        """Open an INT8 file as CPUs run it whose products saturate: scaled for 16-bit sums."""
        return self._start_reduced(read_model(bundle.file(file)), bundle, file)

    def open_segments(
        self, bundle: Bundle, *, variant: str
    ) -> tuple[tuple[OnnxRuntimeSegment, ...], SessionInfo]:
        """Open the segments of a variant, in running order (`finedge.runtime.early_exit`).

        `info.file` names the first one. Where INT8 products saturate, each is scaled by itself.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks a segment, or ONNX Runtime refuses one.
        """
        file = pick_file(bundle, variant, order=FILES.get(variant))
        names = [segment_file(file, k) for k in range(bundle.export.segments.count)]
        precision, reduces = file.split(".")[1], file.split(".")[1] == "int8" and self._saturates()
        models = [self._segment_bytes(bundle.file(name), reduced=reduces) for name in names]
        opened = tuple(
            open_segment(model, name=str(bundle.path / name), options=self.options)
            for name, model in zip(names, models, strict=True)
        )
        info = SessionInfo(NAME, cpu_name(), names[0], REDUCED_RANGE if reduces else precision)
        return opened, replace(info, versions={NAME: package_version(NAME)})

    def _segment_bytes(self, path: Path, *, reduced: bool) -> bytes:
        if not reduced:
            return read_onnx(path)
        from finedge.graph.reduce_range import reduce_range

        content: bytes = reduce_range(read_model(path)).model.SerializeToString()
        return content

    def open_with_taps(self, bundle: Bundle, *, file: str = FLOAT_FILE) -> OnnxRuntimeSession:
        """Open a file with one more output, `tap/NAME`, for each tap of the bundle."""
        model, precision = read_model(bundle.file(file)), file.split(".")[1]
        shown = with_taps(model, bundle.taps)
        if precision == "int8" and self._saturates():
            return self._start_reduced(shown, bundle, file)
        info = SessionInfo(NAME, cpu_name(), file, precision)
        return self._start(shown.SerializeToString(), bundle, info)

    def _saturates(self) -> bool:
        return not self.options.exact and int8_products() == "saturating"

    def _start_reduced(self, model: ModelProto, bundle: Bundle, file: str) -> OnnxRuntimeSession:
        from finedge.graph.reduce_range import reduce_range

        fitted = reduce_range(model)
        log.info(
            "where INT8 products saturate, the weights of %s are scaled to prevent it: "
            "%.0f %% of the output channels, mean scale of all %.2f",
            file,
            100 * fitted.scaled_share,
            fitted.mean_scale,
        )
        info = SessionInfo(NAME, cpu_name(), file, REDUCED_RANGE, weight_scale=fitted.mean_scale)
        return self._start(fitted.model.SerializeToString(), bundle, info)

    def _start(self, model: bytes, bundle: Bundle, info: SessionInfo) -> OnnxRuntimeSession:
        import onnxruntime

        settings = session_settings(self.options)
        path = str(bundle.path / info.file)
        session = open_model(model, settings, providers=[PROVIDER], name=path)
        if session.get_providers()[0] != PROVIDER:
            raise SystemProblem(
                f"ONNX Runtime runs on {session.get_providers()[0]}",
                expected=PROVIDER,
                fix="pip install onnxruntime",
            )
        check_io(session, bundle, file=info.file)
        versions = {NAME: onnxruntime.__version__}
        return OnnxRuntimeSession(session, bundle, replace(info, versions=versions))
