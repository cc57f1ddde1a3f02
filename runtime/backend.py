"""What runs a bundle: two protocols and one table, no base class.

`why_not()` gives one text for the error, the skipped test and the line of `finedge doctor`.
"""

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
from finedge.commands import missing_library
from finedge.errors import BackendMissing, FinedgeError, SystemProblem, UsageError, nearest
from finedge.runtime.machine.packages import failure_text, reason_text
from finedge.spec import Spec

log = logging.getLogger(__name__)


# The precision that a session reports where INT8 weights were scaled at load, because the CPU adds
# two products in 16 bits (`finedge.graph.reduce_range`).
REDUCED_RANGE = "int8 (scaled for 16-bit sums)"


@dataclass(frozen=True)
class SessionInfo:
    """What really runs; it is recorded with every result.

    `file` is what was opened. Where that is an engine, `source` is the bundle's file that it was
    built from, and `path` is where the engine lies. `weight_scale` is the mean scale of the output
    channels where `precision` is `REDUCED_RANGE`, else 1.
    """

    backend: str
    device: str
    file: str
    precision: str
    versions: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    path: Path | None = None
    weight_scale: float = 1.0


@dataclass(frozen=True)
class SessionOptions:
    """How a backend uses the CPU.

    Attributes:
        threads: CPU threads; None is the physical cores this process may use.
        spin: waiting threads keep their core busy. That is up to 15 % faster on an idle machine
            and much slower on a shared one.
        exact: INT8 answers equal the file's on every CPU. Where products would saturate, that is
            slower than scaled weights.
    """

    threads: int | None = None
    spin: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"{self.threads} threads", expected="at least 1")


class Session(Protocol):
    """An open model.

    Examples:
        >>> import numpy as np
        >>> from finedge.bundle import Bundle
        >>> bundle = Bundle.load("examples/birds.finedge")
        >>> session = get_backend("onnxruntime").open(bundle, variant="fp32")
        >>> size = bundle.spec.input
        >>> outputs = session(np.zeros((2, size.height, size.width, 3), np.uint8))
        >>> outputs[bundle.spec.main.name].shape == (2, len(bundle.spec.labels))
        True
        >>> session.close()
    """

    @property
    def info(self) -> SessionInfo:
        """What runs."""

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3] RGB; return float32 [B, classes] for each output name."""

    def close(self) -> None:
        """Free the model. A later call raises; a second close does nothing."""


class Backend(Protocol):
    """A way to run a bundle. `open` raises rather than run something else than was asked for."""

    @property
    def name(self) -> str:
        """Its key in the table."""

    def why_not(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""

    def open(self, bundle: Bundle, *, variant: str) -> Session:
        """Open the file of `bundle` that holds `variant`."""


class NoTaps(SystemProblem):
    """A backend that can show feature maps has no file on this machine that shows them."""


@runtime_checkable
class HasTaps(Protocol):
    """A backend that can also show the float model's feature maps."""

    def open_with_taps(self, bundle: Bundle) -> Session:
        """Open the float model; its session returns `tap/NAME` for each tap, and the outputs.

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
class HasExits(Protocol):
    """A session from which frames may leave early (`finedge.runtime.early_exit`)."""

    taken: NDArray[np.intp]
    """The exit at which each row of the last batch left: int [B]."""

    @property
    def exit_count(self) -> int:
        """The number of exits; it stands for the end of the model in `taken`."""


@runtime_checkable
class HasOwnErrors(Protocol):
    """A session that knows how far its float32 is from float64: others may be as far."""

    def own_errors(self, batch: NDArray[np.uint8]) -> Mapping[str, float]:
        """Return the largest absolute error of each of its arrays on a batch."""


@runtime_checkable
class HasPixels(Protocol):
    """A backend that can also prepare an image file as the run's own validation does."""

    def pixels(self, bundle: Bundle, paths: Sequence[Path]) -> NDArray[np.uint8]:
        """Return uint8 [N, H, W, 3] RGB from the trainer's validation loader, not normalised."""


@runtime_checkable
class HasUsualVariants(Protocol):
    """A backend for which only some variants make sense.

    A CPU computes float16 in float32, with Casts around it: nobody gains by that.
    """

    @property
    def usual_variants(self) -> tuple[str, ...]:
        """The variants that are measured when none are named."""


@runtime_checkable
class HasEngines(Protocol):
    """A backend that compiles a variant into an engine, which may take minutes."""

    def engines(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the device, the versions and the stored engines that an opening depends on."""

    def built_variants(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the variants that open without a build."""


# name -> module:class. These classes take `options=SessionOptions`. Others join by the entry point
# group finedge.backends; they are constructed without arguments.
BACKENDS: dict[str, str] = {
    "tensorrt": "finedge.runtime.trt.backend:TensorRtBackend",
    "tensorrt-rtx": "finedge.runtime.trt.backend:RtxBackend",
    "onnxruntime": "finedge.runtime.ort.backend:OnnxRuntimeBackend",
    "openvino": "finedge.runtime.openvino.backend:OpenVinoBackend",
    "onnxruntime-gpu": "finedge.runtime.ort.gpu.backend:OnnxRuntimeGpuBackend",
    "fake": "finedge.runtime.fake:FakeBackend",
}
FAKES = {"fake"}  # it computes nothing, so it does not count as a backend that can run
# "auto" is the first of these whose why_not() is None. onnxruntime-gpu is chosen by name only: it
# has not run on a GPU, and its first opening can take minutes.
AUTO = ("tensorrt", "tensorrt-rtx", "onnxruntime")


def backend_names() -> tuple[str, ...]:
    """Return the names of all installed backends, those of `BACKENDS` first."""
    entries = entry_points(group="finedge.backends")
    return (*BACKENDS, *(entry.name for entry in entries if entry.name not in BACKENDS))


def get_backend(name: str = "auto", *, options: SessionOptions | None = None) -> Backend:
    """Return a backend that can run on this machine.

    Raises:
        UsageError: the name is unknown.
        BackendMissing: it cannot run on this machine; the text says why.

    Examples:
        >>> get_backend("onnxruntime", options=SessionOptions(threads=1)).name
        'onnxruntime'
    """
    reasons = {}
    for candidate in AUTO if name == "auto" else (name,):
        reasons[candidate] = why_not(candidate)
        if reasons[candidate] is None:
            return load_backend(candidate, options=options)
    texts = (f"backend '{key}' cannot run here: {reason}" for key, reason in reasons.items())
    raise BackendMissing("; ".join(texts))


def why_not(name: str) -> str | None:
    """Return why a backend cannot run on this machine, or None.

    A backend that does not load, or whose own `why_not` raises, has that failure as its reason: it
    must not take the others down.

    Raises:
        UsageError: the name is unknown.
    """
    _target(name)
    try:
        return load_backend(name).why_not()
    except FinedgeError as error:
        return reason_text(error)
    except ModuleNotFoundError as error:
        return f"{error}: pip install {'finedge' if name in BACKENDS else error.name}"
    except ImportError as error:
        return f"{failure_text(error)}: {missing_library(error).fix}"
    except Exception as error:
        return f"the check of this backend fails: {failure_text(error)}"


def load_backend(name: str, *, options: SessionOptions | None = None) -> Backend:
    """Return a backend by its name, whether or not it can run: its `why_not()` says that.

    Raises:
        UsageError: the name is unknown.
    """
    module, attribute = _target(name)
    backend_class: Callable[..., Backend] = getattr(importlib.import_module(module), attribute)
    if name in BACKENDS:
        return backend_class(options=options or SessionOptions())
    if options not in (None, SessionOptions()):
        log.warning("backend '%s' takes no session options: %s is ignored", name, options)
    return backend_class()


def _target(name: str) -> tuple[str, str]:
    """Return module and class of a backend."""
    if name in BACKENDS:
        module, attribute = BACKENDS[name].split(":")
        return module, attribute
    entries = {entry.name: entry for entry in entry_points(group="finedge.backends")}
    if name not in entries:
        raise UsageError(
            f"unknown backend '{name}'", expected=nearest(name, {**entries, **BACKENDS})
        )
    return entries[name].module, entries[name].attr


def usual_variants(backend: Backend, bundle: Bundle) -> tuple[str, ...]:
    """Return the variants of a bundle that a benchmark takes when none are named."""
    variants = bundle.variants()
    if not isinstance(backend, HasUsualVariants):
        return variants
    return tuple(v for v in variants if v in backend.usual_variants)


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
