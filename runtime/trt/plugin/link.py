"""The file name under which TensorRT for RTX looks for its own library.

When its parser adds a plugin, the library opens `libtensorrt_rtx.so`. The wheel contains only
`libtensorrt_rtx.so.1`, so the open fails and the process ends without a message (measured with
1.7.1). It works with a folder that contains a link of that name and is in `LD_LIBRARY_PATH` when
the process starts. It does not help to set the variable later, or to load the library by ctypes
under its other name.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

from finedge.errors import SystemProblem

LIBRARY = "libtensorrt_rtx.so"
SEARCH = "LD_LIBRARY_PATH"


def has_link() -> bool:
    """Tell whether this process finds the library by that name.

    Only then may it parse a graph with a plugin.
    """
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def how_to_link() -> str:
    """Return what to do where `has_link` is False."""
    return f"ln -s {rtx_library()} DIR/{LIBRARY} and start again with {SEARCH}=DIR"


def rtx_library() -> Path:
    """Return the path of the library that the wheel contains.

    Raises:
        SystemProblem: the package is not installed.
    """
    package = importlib.util.find_spec("tensorrt_rtx_libs")
    folders = [Path(p) for p in package.submodule_search_locations or ()] if package else []
    paths = [path for folder in folders for path in sorted(folder.glob(f"{LIBRARY}.*"))]
    if not paths:
        raise SystemProblem(
            f"no {LIBRARY}.* of TensorRT for RTX",
            expected="the package tensorrt_rtx",
            fix="pip install 'finedge[rtx]'",
        )
    return paths[0].resolve()
