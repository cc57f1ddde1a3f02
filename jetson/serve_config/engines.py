"""The TensorRT engines that lie beside a bundle and were made of what it holds now."""

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
    """Return the engines of TensorRT by precision, each compute capability's newest, and how many were left out as made of other files."""

    @cache
    def digest(precision: str, attention: str) -> str:
        return _parsed(bundle, cast("Precision", precision), attention)

    newest: dict[tuple[str, str], StoredEngine] = {}
    stale = 0
    for found in sorted(_candidates(bundle), key=lambda e: e.path.stat().st_mtime):
        if found.key.onnx == digest(
            found.key.precision, "plugin" if found.key.plugin else "decomposed"
        ):
            newest[found.key.precision, found.key.compute_capability] = found
        else:
            stale += 1
    grouped = defaultdict(list)
    for (precision, _), found in sorted(newest.items()):
        grouped[precision].append(found)
    return grouped, stale


def _candidates(bundle: Bundle) -> list[StoredEngine]:
    # TensorRT for RTX is another library; engines with taps have outputs that no client asks for.
    return [
        e
        for e in EngineStore.of(bundle)
        if e.key.library == "tensorrt" and "debug_taps=True" not in e.key.flags
    ]


def _parsed(bundle: Bundle, precision: Precision, attention: str) -> str:
    """Return the digest of what TensorRT would be given today; "" where that cannot be made."""
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
