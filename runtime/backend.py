"""What runs a bundle: two protocols, one table, no base class. The text of `why_not()` is the error, the skip and the doctor's line."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import VARIANTS, Bundle
from finedge.errors import BackendMissing, SystemProblem, UsageError, nearest
from finedge.spec import Spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionInfo:
    """What really runs: recorded with every result.

    `file` is what was opened. Where that is an engine, `source` is the bundle's file that it was
    built from, and `path` is where the engine lies.
    """

    backend: str
    device: str
    file: str
    precision: str
    versions: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    path: Path | None = None


@dataclass(frozen=True)
class SessionOptions:
    """How a backend uses the CPU.

    `threads`: None is the physical cores this process may use. `spin`: waiting threads burn their core, which is up to 15 %
    faster on an idle machine and much slower on a shared one. `exact`: INT8 answers equal the
    file's on every CPU; where products would saturate that is slower than cut weights.
    """

    threads: int | None = None
    spin: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"{self.threads} threads", expected="at least 1")


class Session(Protocol):
    """An open model. `__call__` takes uint8 [B, H, W, 3] RGB and returns float32 [B, classes] per output name."""

    @property
    def info(self) -> SessionInfo:
        """What runs."""

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the model on a preprocessed batch."""

    def close(self) -> None:
        """Free the model; a later call raises, a second close does nothing."""


class Backend(Protocol):
    """A way to run a bundle. `open` raises rather than run something else than what was asked."""

    @property
    def name(self) -> str:
        """Its key in the table."""

    def why_not(self) -> str | None:
        """Return why this backend cannot run here, or None."""

    def open(self, bundle: Bundle, *, variant: str) -> Session:
        """Open the file of `bundle` that holds `variant`."""


class NoTaps(SystemProblem):
    """A backend that can show feature maps has nothing here that does."""


@runtime_checkable
class HasTaps(Protocol):
    """A backend that can also show the float model's feature maps."""

    def open_with_taps(self, bundle: Bundle) -> Session:
        """Open the float model; its session returns `tap/NAME` for each tap of the bundle beside the outputs.

        Raises:
            NoTaps: the text says how to make what shows them.
        """


@runtime_checkable
class HasStream(Protocol):
    """A session that keeps the device busy with the next batch while this one is answered."""

    def stream(
        self, batches: Iterable[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Answer batch after batch, in order."""


@runtime_checkable
class HasOwnErrors(Protocol):
    """A session that knows how far its float32 is from float64: others may be as far."""

    def own_errors(self, batch: NDArray[np.uint8]) -> Mapping[str, float]:
        """Return the largest absolute error of each of its arrays on a batch."""


@runtime_checkable
class HasPixels(Protocol):
    """A backend that can also show what the run's own validation makes of an image file."""

    def pixels(self, bundle: Bundle, paths: Sequence[Path]) -> NDArray[np.uint8]:
        """Return uint8 [N, H, W, 3] RGB as the trainer's validation loader prepares these files, before normalisation."""


@runtime_checkable
class HasUsualVariants(Protocol):
    """A backend that runs only some variants to a purpose: a CPU computes float16 in float32, with Casts around it."""

    @property
    def usual_variants(self) -> tuple[str, ...]:
        """The variants that are measured when none are named."""


# name -> module:class; "auto" takes the first whose why_not() is None. These classes take `options=SessionOptions`.
# Others join by the entry point group finedge.backends; they are constructed without arguments.
BACKENDS: dict[str, str] = {
    "tensorrt": "finedge.runtime.trt:TensorRtBackend",
    "tensorrt-rtx": "finedge.runtime.trt:RtxBackend",
    "onnxruntime": "finedge.runtime.ort.backend:OnnxRuntimeBackend",
    "fake": "finedge.runtime.fake:FakeBackend",
}
AUTO = ("tensorrt", "tensorrt-rtx", "onnxruntime")


def backend_names() -> tuple[str, ...]:
    """Return every known backend, our own first."""
    return (
        *BACKENDS,
        *(e.name for e in entry_points(group="finedge.backends") if e.name not in BACKENDS),
    )


def get_backend(name: str = "auto", *, options: SessionOptions | None = None) -> Backend:
    """Return a backend that can run here.

    Raises:
        UsageError: the name is unknown.
        BackendMissing: it cannot run here; the text says why.
    """
    candidates = {
        n: load_backend(n, options=options) for n in (AUTO if name == "auto" else (name,))
    }
    reasons = {n: backend.why_not() for n, backend in candidates.items()}
    usable = [candidates[n] for n, why in reasons.items() if why is None]
    if not usable:
        raise BackendMissing(
            "; ".join(f"backend '{n}' cannot run here: {why}" for n, why in reasons.items())
        )
    return usable[0]


def load_backend(name: str, *, options: SessionOptions | None = None) -> Backend:
    """Return a known backend whether or not it can run here: its `why_not()` says."""
    targets = {**{e.name: e.value for e in entry_points(group="finedge.backends")}, **BACKENDS}
    if name not in targets:
        raise UsageError(f"unknown backend '{name}'", expected=nearest(name, targets))
    module, attribute = targets[name].split(":")
    backend_class: Callable[..., Backend] = getattr(importlib.import_module(module), attribute)
    if name in BACKENDS:
        return backend_class(options=options or SessionOptions())
    if options not in (None, SessionOptions()):
        log.warning("backend '%s' takes no session options: %s is ignored", name, options)
    return backend_class()


def usual_variants(backend: Backend, bundle: Bundle) -> tuple[str, ...]:
    """Return the variants of a bundle that a benchmark of this backend takes when none are named."""
    held = bundle.variants()
    return (
        tuple(v for v in held if v in backend.usual_variants)
        if isinstance(backend, HasUsualVariants)
        else held
    )


def pick_file(bundle: Bundle, variant: str, *, order: tuple[str, ...] | None = None) -> str:
    """Return the first file of `order` (default: any file of the variant) that the bundle holds.

    Raises:
        UsageError: no such variant exists.
        BundleError: the bundle lacks it; the text says how to make it.
    """
    if variant not in VARIANTS:
        raise UsageError(f"unknown variant '{variant}'", expected=nearest(variant, VARIANTS))
    names = order or VARIANTS[variant]
    present = [n for n in names if n in bundle.files]
    if present:
        return present[0]
    bundle.file(names[0])  # raises, and names the command that makes the file
    raise AssertionError(names)


def check_batch(batch: NDArray[np.uint8], spec: Spec) -> None:
    """Refuse a batch that is not uint8 [B, height, width, 3] as the spec says."""
    size = (spec.input.height, spec.input.width, 3)
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != size or not len(batch):
        raise UsageError(
            f"a batch of {batch.dtype} {list(batch.shape)}",
            expected=f"uint8 [B, {', '.join(map(str, size))}]",
            fix="use finedge.preprocess",
        )
