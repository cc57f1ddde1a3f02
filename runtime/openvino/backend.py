"""The OpenVINO backend: the same files as ONNX Runtime's CPU backend."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.errors import SystemProblem
from finedge.graph.onnx_file import read_model
from finedge.graph.taps import with_taps
from finedge.runtime.backend import SessionInfo, SessionOptions, pick_file
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.machine.packages import is_installed, reason_text
from finedge.runtime.openvino.library import NAME, openvino_version
from finedge.runtime.openvino.session import OpenVinoSession, open_session, session_settings
from finedge.runtime.ort.backend import FILES
from finedge.runtime.ort.int8_products import int8_products

log = logging.getLogger(__name__)

# onnx reads the files; ONNX Runtime tells what INT8 products are on this CPU.
PACKAGES = (NAME, "onnx", "onnxruntime")


@dataclass(frozen=True)
class OpenVinoBackend:
    """Runs a bundle's ONNX files on the CPU."""

    options: SessionOptions = field(default_factory=SessionOptions)
    name: str = field(default=NAME, init=False)
    usual_variants: tuple[str, ...] = field(default=("fp32", "int8"), init=False)

    def why_not(self) -> str | None:
        """Return why it cannot run on this machine."""
        missing = [p for p in PACKAGES if not is_installed(p)]
        if missing:
            return f"needs {', '.join(missing)}: pip install 'finedge[openvino]'"
        try:
            openvino_version()
        except SystemProblem as error:
            return reason_text(error)
        return None

    def open(self, bundle: Bundle, *, variant: str) -> OpenVinoSession:
        """Open a variant: the file that ONNX Runtime runs on the CPU.

        Where INT8 products would saturate, an INT8 file is multiplied in float: exact, and no
        faster than fp32. A warning says so.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks it, or OpenVINO refuses the file.
        """
        return self.open_file(bundle, pick_file(bundle, variant, order=FILES.get(variant)))

    def open_file(self, bundle: Bundle, file: str) -> OpenVinoSession:
        """Open one file of the manifest by its name."""
        model, precision = read_model(bundle.file(file)), file.split(".")[1]
        options = self.options
        if precision == "int8" and not options.exact and int8_products() == "saturating":
            # Which products its kernels add is not documented, so weights that fit those of ONNX
            # Runtime (`finedge.graph.reduce_range`) prove nothing here.
            log.warning(
                "OpenVINO's INT8 products saturate on this CPU: it multiplies %s in float, which "
                "is no faster than fp32. The backend onnxruntime is faster.",
                file,
            )
            options = replace(options, exact=True)
        info = SessionInfo(NAME, cpu_name(), file, precision)
        return self._start(model.SerializeToString(), bundle, info, options=options)

    def open_with_taps(self, bundle: Bundle) -> OpenVinoSession:
        """Open the float model with one more output, `tap/NAME`, for each tap of the bundle."""
        model = with_taps(read_model(bundle.file(FLOAT_FILE)), bundle.taps).SerializeToString()
        info = SessionInfo(NAME, cpu_name(), FLOAT_FILE, "fp32")
        return self._start(model, bundle, info, options=self.options)

    def _start(
        self, content: bytes, bundle: Bundle, info: SessionInfo, *, options: SessionOptions
    ) -> OpenVinoSession:
        settings = session_settings(options)
        versions = {NAME: openvino_version()}
        return open_session(content, bundle, replace(info, versions=versions), settings=settings)
