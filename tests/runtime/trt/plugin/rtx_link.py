"""The environment of a process in which TensorRT for RTX may parse a plugin (see `link.py`)."""

from __future__ import annotations

import os

from finedge.runtime.trt.plugin.link import LIBRARY, SEARCH, rtx_library


def linked_environment(folder, environment=os.environ):
    """Link the library under the name it looks for in `folder`; return an environment with it."""
    (folder / LIBRARY).symlink_to(rtx_library())
    paths = [str(folder), *filter(None, [environment.get(SEARCH)])]
    return {**environment, SEARCH: os.pathsep.join(paths)}
