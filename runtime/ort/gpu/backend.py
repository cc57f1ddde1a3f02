"""The backend `onnxruntime-gpu`: ONNX Runtime on an NVIDIA GPU, by what is installed.

It opens nothing that computes on the CPU: one real run is profiled at every opening.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from finedge.bundle import FLOAT_FILE, VARIANTS, Bundle
from finedge.errors import BackendMissing, UsageError
from finedge.graph.onnx_file import read_model, read_onnx
from finedge.graph.taps import with_taps
from finedge.runtime.backend import SessionOptions, pick_file
from finedge.runtime.cuda.libcuda import gpu_name
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.ort.gpu import probe
from finedge.runtime.ort.gpu.opening import NAME, Opening
from finedge.runtime.ort.gpu.providers import Provider, candidates
from finedge.runtime.ort.session import OnnxRuntimeSession

PACKAGES = ("onnxruntime", "onnx")


@dataclass(frozen=True)
class OnnxRuntimeGpuBackend:
    """Runs a bundle's ONNX files on CUDA's device 0, by the first provider that can run here."""

    options: SessionOptions = field(default_factory=SessionOptions)
    name: str = field(default=NAME, init=False)

    def why_not(self) -> str | None:
        """Return why it cannot run here: for each provider the package, the library, the driver."""
        missing = [p for p in PACKAGES if not is_installed(p)]
        if missing:
            return f"needs {', '.join(missing)}: pip install finedge"
        reasons = {}
        try:
            for provider in candidates():
                reason = probe.why_not(provider)
                if reason is None:
                    return None
                reasons[provider.name] = reason
        except UsageError as error:
            return str(error)
        return _joined(reasons)

    @property
    def provider(self) -> Provider:
        """The provider that is taken.

        Raises:
            BackendMissing: none can run here; the text is `why_not()`.
        """
        for provider in candidates():
            if probe.why_not(provider) is None:
                return provider
        raise BackendMissing(f"backend '{NAME}' cannot run here: {self.why_not()}")

    @property
    def usual_variants(self) -> tuple[str, ...]:
        """The variants that the provider accelerates; all of them where none can run."""
        try:
            return self.provider.usual_variants
        except (BackendMissing, UsageError):
            return tuple(VARIANTS)

    def open(self, bundle: Bundle, *, variant: str) -> OnnxRuntimeSession:
        """Open a variant; `info.versions` names the provider.

        The first time a provider of TensorRT builds an engine, which can take minutes.

        Raises:
            UsageError: no such variant exists.
            BundleError: the bundle lacks it, or its input or outputs are not the spec's.
            BackendMissing: no provider can run here.
            SystemProblem: the provider refuses the file, or a part of it ran on the CPU.
        """
        # Of INT8 the portable file alone: its activations are signed, as TensorRT wants them.
        order = VARIANTS.get(variant, ())[:1]
        file = pick_file(bundle, variant, order=order)
        return self._opening(bundle, variant).open(read_onnx(bundle.file(file)), file=file)

    def engines(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the provider, the GPU, and the variants that are compiled for it."""
        return (self.provider.short, gpu_name(), *self.built_variants(bundle))

    def built_variants(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the usual variants that were opened before; all where nothing is compiled."""
        files = {v: VARIANTS[v][0] for v in self.usual_variants if VARIANTS[v][0] in bundle.files}
        return tuple(v for v, file in files.items() if self._opening(bundle, v).is_built(file))

    def open_with_taps(self, bundle: Bundle) -> OnnxRuntimeSession:
        """Open the float model with one more output, `tap/NAME`, for each tap of the bundle."""
        model = with_taps(read_model(bundle.file(FLOAT_FILE)), bundle.taps).SerializeToString()
        return self._opening(bundle, "fp32").open(model, file=FLOAT_FILE)

    def _opening(self, bundle: Bundle, variant: str) -> Opening:
        return Opening(self.provider, bundle, variant, self.options, gpu_name())


def _joined(reasons: dict[str, str]) -> str:
    """Return one text; providers with the same reason are named together."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(group)}: {reason}" for reason, group in names.items())
