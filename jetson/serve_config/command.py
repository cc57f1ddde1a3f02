"""`finedge serve-config`: a bundle as Triton Inference Server or DeepStream wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.errors import UsageError
from finedge.jetson.serve_config import deepstream, triton
from finedge.jetson.serve_config.folder import Folder, Request, write
from finedge.sanitize import printable

log = logging.getLogger(__name__)

LARGEST_BATCH = 65536
TARGETS: dict[str, Callable[[Bundle, Request], list[Folder]]] = {
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
    """Write what another server needs to run a bundle, and say what it will do otherwise.

    Args:
        target: triton: a model repository; deepstream: a configuration of the stock nvinfer element with the model it needs.
        bundle: the bundle's folder.
        out: the model repository (its other models stay), or a folder of its own for deepstream.
        variant: fp32, fp16 or int8; auto is fp32 for triton, and fp16 where the bundle holds it for deepstream.
        batch: the largest batch the server may form.
        plugin: libfinedge_plugin_autoload.so on the serving machine: attention by our kernel instead of TensorRT's (deepstream).
    """
    if not 1 <= batch <= LARGEST_BATCH:
        raise UsageError(f"--batch {batch}", expected=f"1 to {LARGEST_BATCH}")
    if plugin is not None and printable(str(plugin)) != str(plugin):
        raise UsageError(f"--plugin '{plugin}'", expected="a name that fits on a line of a file")
    out = out.resolve()
    folders = TARGETS[target](Bundle.load(bundle), Request(variant, batch, plugin))
    files = [file for folder in folders for file in write(folder, out)]
    notes = list(dict.fromkeys(note for folder in folders for note in folder.notes))
    for note in notes:
        log.warning("%s: %s", target, note)
    return {
        "target": target,
        "out": str(out),
        "files": [str(f.relative_to(out)) for f in files],
        "notes": notes,
    }
