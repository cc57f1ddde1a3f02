"""The name under which TensorRT for RTX looks for itself.

When its parser adds a plugin, the library opens `libtensorrt_rtx.so`. The wheel holds only `libtensorrt_rtx.so.1`; the open fails and the
process ends without a word (measured with 1.7.1). A folder with a link of that name, in `LD_LIBRARY_PATH` when the process starts, is the
cure; set later, or loaded by ctypes under its other name, it is none.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from finedge.errors import SystemProblem

LIBRARY = "libtensorrt_rtx.so"
SEARCH = "LD_LIBRARY_PATH"


def has_link() -> bool:
    """Tell whether this process finds the library by that name, and so may parse a graph with a plugin."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def how_to_link() -> str:
    """Return what to do where `has_link` is False."""
    return f"ln -s {_library()} DIR/{LIBRARY} and start again with {SEARCH}=DIR"


def make_link(folder: Path) -> Path:
    """Put the link into `folder`, which is made, and return the folder.

    Raises:
        SystemProblem: the package is not installed.
    """
    library = _library()
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / LIBRARY
    if not link.is_symlink() or link.readlink() != library:
        beside = folder / f".{LIBRARY}-{os.getpid()}"
        beside.symlink_to(library)
        beside.replace(link)
    return folder


def with_link(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment for a process that finds the link in `folder`."""
    paths = [str(folder), *filter(None, [environment.get(SEARCH)])]
    return {**environment, SEARCH: os.pathsep.join(paths)}


def _library() -> Path:
    package = importlib.util.find_spec("tensorrt_rtx_libs")
    folders = [Path(p) for p in package.submodule_search_locations or ()] if package else []
    found = [path for folder in folders for path in sorted(folder.glob(f"{LIBRARY}.*"))]
    if not found:
        raise SystemProblem(
            f"no {LIBRARY}.* of TensorRT for RTX",
            expected="the package tensorrt_rtx",
            fix="pip install 'finedge[rtx]'",
        )
    return found[0].resolve()
