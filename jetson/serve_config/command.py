"""`finedge serve-config`: the files with which Triton or DeepStream runs a bundle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.errors import UsageError
from finedge.jetson.serve_config import deepstream, triton
from finedge.jetson.serve_config.folder import Request, ServeFolder, write
from finedge.sanitize import printable

log = logging.getLogger(__name__)

MAX_BATCH = 65536
TARGETS: dict[str, Callable[[Bundle, Request], list[ServeFolder]]] = {
    "triton": triton.folders,
    "deepstream": deepstream.folders,
}


def serve_config(
    target: Positional[Literal["triton", "deepstream"]],
    bundle: Positional[Path],
    *,
    out: Path,
    variant: str = "auto",
    batch: int = 8,
    plugin: Path | None = None,
) -> dict[str, Any]:
    """Write what another server needs to run a bundle, and say what that server does differently.

    Args:
        target: triton writes a model repository. deepstream writes a configuration of the stock
            nvinfer element, with the model that it needs.
        bundle: the bundle's folder.
        out: the model repository (its other models stay), or a folder of its own for deepstream.
        variant: fp32, fp16 or int8. auto is fp32 for triton; for deepstream it is fp16 where the
            bundle holds it.
        batch: the largest batch the server may form.
        plugin: libfinedge_plugin_autoload.so on the serving machine. Attention then runs in
            finedge's kernel instead of TensorRT's (deepstream only).
    """
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"--batch {batch}", expected=f"1 to {MAX_BATCH}")
    if plugin is not None and printable(str(plugin)) != str(plugin):
        raise UsageError(f"--plugin '{plugin}'", expected="a name that fits on one line of a file")
    out = out.resolve()
    folders = TARGETS[target](Bundle.load(bundle), Request(variant, batch, plugin))
    files = [file for folder in folders for file in write(folder, out)]
    notes = list(dict.fromkeys(note for folder in folders for note in folder.notes))
    for note in notes:
        log.warning("%s: %s", target, note)
    return {
        "target": target,
        "out": str(out),
        "files": [str(file.relative_to(out)) for file in files],
        "notes": notes,
    }
