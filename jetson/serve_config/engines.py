"""The TensorRT engines in a bundle's folder that were built from its present files."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import cast

from finedge.bundle import Bundle
from finedge.errors import FinedgeError
from finedge.runtime.trt.build.options import FILES, BuildOptions, Precision
from finedge.runtime.trt.build.store import EngineStore, StoredEngine


def fresh_engines(bundle: Bundle) -> tuple[Mapping[str, list[StoredEngine]], int]:
    """Return the engines by precision, and how many were left out.

    Each precision has the newest engine of every compute capability. Engines of other files than
    the bundle holds now are left out.
    """

    @cache
    def digest(precision: str, attention: str) -> str:
        return _model_digest(bundle, cast("Precision", precision), attention)

    newest: dict[tuple[str, str], StoredEngine] = {}
    stale = 0
    for engine in sorted(_candidates(bundle), key=lambda engine: engine.path.stat().st_mtime):
        attention = "plugin" if engine.key.plugin else "decomposed"
        if engine.key.onnx == digest(engine.key.precision, attention):
            newest[engine.key.precision, engine.key.compute_capability] = engine
        else:
            stale += 1
    grouped = defaultdict(list)
    for (precision, _), engine in sorted(newest.items()):
        grouped[precision].append(engine)
    return grouped, stale


def _candidates(bundle: Bundle) -> list[StoredEngine]:
    # TensorRT for RTX is another library; engines with taps have outputs that no client asks for.
    return [
        engine
        for engine in EngineStore.of(bundle)
        if engine.key.library == "tensorrt" and "debug_taps=True" not in engine.key.flags
    ]


def _model_digest(bundle: Bundle, precision: Precision, attention: str) -> str:
    """Return the digest of the model that TensorRT would parse now, or "" where there is none."""
    from finedge.graph.onnx_file import read_model
    from finedge.runtime.trt.build.graph import prepare

    if FILES[precision] not in bundle.files:
        return ""
    try:
        options = BuildOptions(precision, "plugin" if attention == "plugin" else "decomposed")
        model = prepare(read_model(bundle.file(FILES[precision])), options)
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    except FinedgeError:
        return ""
