"""The package openvino, loaded without the reports that it sends to its maker."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from finedge.runtime.machine.packages import load_package, package_version

NAME = "openvino"
# OpenVINO (2026.4) counts each import, and sends the count with an identifier that it keeps in the
# home folder. Without this package it does neither: it has a stub of its own for that case.
REPORTS = "openvino_telemetry"


def openvino() -> Any:
    """Return the package `openvino`.

    Raises:
        PackageMissing: it is not installed.
        PackageBroken: it is installed and does not load.
    """
    if NAME in sys.modules:
        return load_package(NAME)
    with _hidden(REPORTS):
        return load_package(NAME)


@functools.cache
def core() -> Any:
    """Return the `openvino.Core` of this process; it is never freed.

    Its CPU plugin sets an alternate signal stack for the thread that loads it, and unmaps that
    stack when it is freed (2026.4). Where another core set its own stack, or another thread frees
    it, the thread keeps the unmapped one: the next Ctrl-C or SIGTERM is a segmentation fault.

    Raises:
        PackageMissing, PackageBroken: as `openvino`.
    """
    return openvino().Core()


def openvino_version() -> str:
    """Return its version, e.g. "2026.4.1-22982-e213a147257-releases/2026/4".

    Raises:
        PackageMissing, PackageBroken: as `openvino`.
    """
    openvino()
    return package_version(NAME)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make a package look missing for the time of an import."""
    loaded = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # Python's mark of a missing module
    try:
        yield
    finally:
        del sys.modules[name]
        if loaded is not None:
            sys.modules[name] = loaded
