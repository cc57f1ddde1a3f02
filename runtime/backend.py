"""What runs a bundle: two protocols, one table, no base class. The text of `why_not()` is the error, the skip and the doctor's line."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import BackendMissing, UsageError, nearest


@dataclass(frozen=True)
class SessionInfo:
    """What really runs: recorded with every result."""

    backend: str
    device: str
    file: str
    precision: str
    versions: Mapping[str, str] = field(default_factory=dict)


class Session(Protocol):
    """An open model. `__call__` takes uint8 [B, H, W, 3] RGB and returns float32 [B, classes] per output name."""

    info: SessionInfo

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A way to run a bundle. `open` raises rather than run something else than what was asked."""

    name: str

    def why_not(self) -> str | None:
        """Return why this backend cannot run here, or None."""

    def open(self, bundle: Bundle, *, variant: str) -> Session:
        """Open the file of `bundle` that holds `variant`."""


# name -> module:class; "auto" takes the first whose why_not() is None. Others join by the entry point group finedge.backends.
BACKENDS: dict[str, str] = {
    "onnxruntime": "finedge.runtime.ort:OnnxRuntimeBackend",
    "fake": "finedge.runtime.fake:FakeBackend",
}
AUTO = ("onnxruntime",)


def backend_names() -> tuple[str, ...]:
    """Return every known backend, our own first."""
    return (*BACKENDS, *(e.name for e in entry_points(group="finedge.backends") if e.name not in BACKENDS))


def get_backend(name: str = "auto") -> Backend:
    """Return a backend that can run here.

    Raises:
        UsageError: the name is unknown.
        BackendMissing: it cannot run here; the text says why.
    """
    if name == "auto":
        reasons = {n: _load(n).why_not() for n in AUTO}
        usable = [n for n, why in reasons.items() if why is None]
        if not usable:
            raise BackendMissing("no backend can run here", fix="; ".join(f"{n}: {why}" for n, why in reasons.items()))
        return _load(usable[0])
    backend = _load(name)
    why = backend.why_not()
    if why is not None:
        raise BackendMissing(f"backend '{name}' cannot run here: {why}")
    return backend


def _load(name: str) -> Backend:
    targets = {**{e.name: e.value for e in entry_points(group="finedge.backends")}, **BACKENDS}
    if name not in targets:
        raise UsageError(f"unknown backend '{name}'", expected=nearest(name, targets))
    module, cls = targets[name].split(":")
    return getattr(importlib.import_module(module), cls)()  # type: ignore[no-any-return]
