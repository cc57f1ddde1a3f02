"""Opens a model on a provider, and refuses it where a part of it was computed on the CPU."""

from __future__ import annotations

import importlib
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finedge.bundle import Bundle
from finedge.errors import SystemProblem
from finedge.runtime.backend import SessionInfo, SessionOptions
from finedge.runtime.batch_profile import Profile
from finedge.runtime.machine.cache import cache_folder
from finedge.runtime.ort.gpu.loading import apply
from finedge.runtime.ort.gpu.placement import (
    RanNode,
    check_placement,
    name_nodes,
    profiled_nodes,
)
from finedge.runtime.ort.gpu.providers import OVERRIDE, Provider, provider_options
from finedge.runtime.ort.session import (
    OnnxRuntimeSession,
    ProviderOptions,
    check_io,
    open_model,
    session_settings,
)

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

NAME = "onnxruntime-gpu"
# ONNX Runtime refuses a graph of which the CPU would run a part.
STRICT = ("session.disable_cpu_ep_fallback", "1")
STRICT_TEXT = "assigned to the default CPU EP"
# Q/DQ pairs are computed as they stand, and those of constants once: CUDA's provider has no kernel
# for a bias of int32.
PLAIN_QDQ = ("session.disable_quant_qdq", "1")


@dataclass(frozen=True)
class Opening:
    """The opening of a variant on a provider; `device` is the GPU's name."""

    provider: Provider
    bundle: Bundle
    variant: str
    options: SessionOptions
    device: str

    def open(self, model: bytes, *, file: str) -> OnnxRuntimeSession:
        """Open the bytes of `file`, run a frame of zeros, and see which provider ran what."""
        cache = self._cache(file)
        self._log_differences(file, cache)
        options = provider_options(self.provider, self.bundle, variant=self.variant, cache=cache)
        with tempfile.TemporaryDirectory() as folder:
            inference, reason = self._on_gpu(model, options, file=file, folder=folder)
            check_io(inference, self.bundle, file=file)
            session = OnnxRuntimeSession(
                inference, self.bundle, self._info(file), max_batch=self._max_batch
            )
            size = self.bundle.spec.input
            frame = np.zeros((1, size.height, size.width, 3), np.uint8)
            nodes = profiled_nodes(lambda: session(frame), inference.end_profiling)
        providers = [name for name, _ in options]
        shapes = check_placement(nodes, providers, file=file, reason=reason)
        self._log_placement(nodes, shapes, file=file)
        return session

    def is_built(self, file: str) -> bool:
        """Tell whether `file` opens without being compiled first."""
        folder = self._cache(file)
        return not self.provider.builds_engines or (folder is not None and any(folder.iterdir()))

    def _on_gpu(
        self, model: bytes, options: Sequence[ProviderOptions], *, file: str, folder: str
    ) -> tuple[onnxruntime.InferenceSession, str]:
        """Return a session that writes a profile, and why ONNX Runtime refused a strict one.

        The strict session has nothing on the CPU. Where shapes are computed there, the second one
        is opened, and its run decides.
        """
        try:
            return self._session(model, options, file=file, folder=folder, strict=True), ""
        except SystemProblem as error:
            if STRICT_TEXT not in error.what:
                raise
            reason = str(error.__cause__)
        return self._session(model, options, file=file, folder=folder, strict=False), reason

    def _session(
        self,
        model: bytes,
        options: Sequence[ProviderOptions],
        *,
        file: str,
        folder: str,
        strict: bool,
    ) -> onnxruntime.InferenceSession:
        settings = session_settings(self.options)
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "run")
        if strict:
            settings.add_session_config_entry(*STRICT)
        if self.variant == "int8" and not self.provider.builds_engines:
            settings.add_session_config_entry(*PLAIN_QDQ)
        return open_model(
            model,
            settings,
            providers=apply(self.provider, settings, options),
            name=f"{self.bundle.path / file} on {self.provider.name}",
            error=SystemProblem,
            fix=f"finedge doctor; {OVERRIDE}=cuda takes CUDA's provider; "
            "--backend onnxruntime runs on the CPU",
        )

    @property
    def _max_batch(self) -> int | None:
        return Profile().max if self.provider.builds_engines else None

    def _info(self, file: str) -> SessionInfo:
        import onnxruntime

        built_for = getattr(onnxruntime, "cuda_version", "")
        version = f"CUDA {built_for}" if built_for else "unknown"
        if self.provider.module:
            version = str(importlib.import_module(self.provider.module).__version__)
        versions = {"onnxruntime": onnxruntime.__version__, self.provider.name: version}
        precision = self.provider.precision(self.variant)
        return SessionInfo(NAME, self.device, file, precision, versions)

    def _cache(self, file: str) -> Path | None:
        """Return the user's folder for the engines of a file, or None where there can be none.

        An engine is a program, so none is read from a bundle, which may come from another user.
        """
        if not self.provider.builds_engines:
            return None
        import onnxruntime

        gpu = re.sub(r"[^a-z0-9]+", "-", self.device.lower())
        machine = f"{gpu}-{self.provider.short}-ort{onnxruntime.__version__}"
        folder = cache_folder() / NAME / self.bundle.digest()[:16] / machine / file
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("%s: %s: engines are built at every start", folder, error.strerror)
            return None
        return folder

    def _log_placement(
        self, nodes: Sequence[RanNode], shapes: Sequence[RanNode], *, file: str
    ) -> None:
        for name, count in Counter(node.provider for node in nodes).items():
            log.info("%s: %s runs %d nodes", file, name, count)
        if shapes:
            log.info("%s: shapes are computed on the CPU: %s", file, name_nodes(shapes))

    def _log_differences(self, file: str, cache: Path | None) -> None:
        if cache is not None and not any(cache.iterdir()):
            log.warning(
                "%s compiles %s for this GPU: that can take minutes. Later starts read %s",
                self.provider.name,
                file,
                cache,
            )
        if self.variant not in self.provider.usual_variants:
            log.warning(
                "%s does not accelerate %s: it computes the file's operations in float, "
                "no faster than fp32",
                self.provider.name,
                self.variant,
            )
