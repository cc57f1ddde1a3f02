"""The views of a bundle, opened: the tensors that they read, and a session that returns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import CPU_FILE, FLOAT_FILE, PROJECTED_FILE, Bundle, Tap, View
from finedge.errors import BundleError, UsageError, nearest
from finedge.graph.folding import fold
from finedge.graph.onnx_file import read_model
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.explain.graph import Graph
from finedge.runtime.explain.grid import Places
from finedge.runtime.explain.views import KINDS, ExplainOptions, FrameTensors, OpenView
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.session import OnnxRuntimeSession


@dataclass(frozen=True)
class OpenViews:
    """Views of a bundle, found in the graph of a variant.

    Attributes:
        bundle: that declares them.
        file: that runs.
        views: in the order of the bundle.
        places: where the graph's tensors lie on the crop.
    """

    bundle: Bundle
    file: str
    views: tuple[OpenView, ...]
    places: Places

    def session(self, backend: OnnxRuntimeBackend) -> OnnxRuntimeSession:
        """Open the file with one more output, `tap/TENSOR`, for each tensor of the views."""
        tensors = dict.fromkeys(tensor for view in self.views for tensor in view.tensors)
        taps = tuple(Tap(tensor, tensor) for tensor in tensors)
        return backend.open_with_taps(replace(self.bundle, taps=taps), file=self.file)

    def inside(
        self, outputs: Mapping[str, NDArray[np.floating]], *, options: ExplainOptions
    ) -> FrameTensors:
        """Return one frame inside the network, from the outputs [1, ...] of that session."""
        tensors = {name.removeprefix("tap/"): values for name, values in outputs.items()}
        return FrameTensors(self.bundle.spec, self.places, tensors, options)


def open_views(
    bundle: Bundle, *, variant: str = "fp32", views: tuple[View, ...] | None = None
) -> OpenViews:
    """Find the views of a bundle, or some of them, in the graph of a variant, fp32 or int8.

    Raises:
        BundleError: the bundle declares no views, or a view does not fit its graph.
        UsageError: another variant.
    """
    _refuse_without_views(bundle)
    source, file = _files(bundle, variant)
    graph = Graph(fold(read_model(bundle.file(source)), CROSS_LAYER_ATTENTION))
    chosen = bundle.views if views is None else views
    opened = tuple(_open(view, bundle, graph) for view in chosen)
    return OpenViews(bundle, file, opened, Places(graph))


def _files(bundle: Bundle, variant: str) -> tuple[str, str]:
    """Return the float file whose graph names a variant's tensors, and the file that runs."""
    if variant == "fp32":
        return FLOAT_FILE, FLOAT_FILE
    if variant != "int8":
        raise UsageError(f"variant '{variant}'", expected="fp32 or int8")
    return PROJECTED_FILE if PROJECTED_FILE in bundle.files else FLOAT_FILE, CPU_FILE


def _refuse_without_views(bundle: Bundle) -> None:
    if not bundle.views:
        raise BundleError(
            f"{bundle.path} declares no views: there is nothing to show",
            fix="finedge export RUN --out BUNDLE, with this version",
        )
    if bundle.spec.preprocess.frame is not None:
        raise BundleError(
            f"{bundle.path} takes whole frames: its maps lie on a crop inside the graph",
            fix="explain a bundle that was exported without --frame",
        )


def _open(view: View, bundle: Bundle, graph: Graph) -> OpenView:
    tensors = {tap.name: tap.tensor for tap in bundle.taps}
    if view.tap not in tensors:
        raise BundleError(
            f"view '{view.label}' of {bundle.path} shows tap '{view.tap}'",
            expected=nearest(view.tap, tensors),
            fix="export again",
        )
    if view.kind not in KINDS:
        raise BundleError(
            f"view '{view.label}' of {bundle.path} has kind '{view.kind}'",
            expected=nearest(view.kind, KINDS),
            fix="update finedge",
        )
    return KINDS[view.kind].open(view, tensors[view.tap], graph=graph, spec=bundle.spec)
