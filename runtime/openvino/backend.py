"""The OpenVINO backend: the same files as ONNX Runtime's CPU backend."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.errors import SystemProblem
from finedge.graph.onnx_file import read_model
from finedge.graph.reduce_range import reduce_range
from finedge.graph.taps import with_taps
from finedge.runtime.backend import REDUCED_RANGE, SessionInfo, SessionOptions, pick_file
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.machine.packages import is_installed, reason_text
from finedge.runtime.openvino.library import NAME, openvino_version
from finedge.runtime.openvino.session import OpenVinoSession, open_session, session_settings
from finedge.runtime.ort.backend import FILES
from finedge.runtime.ort.int8_products import int8_products


@dataclass(frozen=True)
class OpenVinoBackend:
    """Runs a bundle's ONNX files on the CPU."""

    options: SessionOptions = field(default_factory=SessionOptions)
    name: str = field(default=NAME, init=False)
    usual_variants: tuple[str, ...] = field(default=("fp32", "int8"), init=False)

    def why_not(self) -> str | None:
        """Return why it cannot run on this machine."""
        if not is_installed(NAME):
            return "needs openvino: pip install 'finedge[openvino]'"
        try:
            openvino_version()
        except SystemProblem as error:
            return reason_text(error)
        return None

    def open(self, bundle: Bundle, *, variant: str) -> OpenVinoSession:
        """Open a variant: the file that ONNX Runtime runs on the CPU.

        `info.precision` is `REDUCED_RANGE` where its weights were cut to 7 bits.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks it, or OpenVINO refuses the file.
        """
        return self.open_file(bundle, pick_file(bundle, variant, order=FILES.get(variant)))

    def open_file(self, bundle: Bundle, file: str) -> OpenVinoSession:
        """Open one file of the manifest by its name."""
        model, precision = read_model(bundle.file(file)), file.split(".")[1]
        # Without VNNI its INT8 products saturate as ONNX Runtime's do.
        if precision == "int8" and not self.options.exact and int8_products() == "saturating":
            model, precision = reduce_range(model), REDUCED_RANGE
        info = SessionInfo(NAME, cpu_name(), file, precision)
        return self._start(model.SerializeToString(), bundle, info)

    def open_with_taps(self, bundle: Bundle) -> OpenVinoSession:
        """Open the float model with one more output, `tap/NAME`, for each tap of the bundle."""
        model = with_taps(read_model(bundle.file(FLOAT_FILE)), bundle.taps).SerializeToString()
        return self._start(model, bundle, SessionInfo(NAME, cpu_name(), FLOAT_FILE, "fp32"))

    def _start(self, content: bytes, bundle: Bundle, info: SessionInfo) -> OpenVinoSession:
        settings = session_settings(self.options)
        versions = {NAME: openvino_version()}
        return open_session(content, bundle, replace(info, versions=versions), settings=settings)
