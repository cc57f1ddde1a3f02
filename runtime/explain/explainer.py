"""A bundle's model, opened so that its views can be drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import CPU_FILE, FLOAT_FILE, PROJECTED_FILE, Bundle, Tap, View
from finedge.errors import BundleError, UsageError, nearest
from finedge.graph.folding import fold
from finedge.graph.onnx_file import read_model
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.classifier import Classifier, Ranked
from finedge.runtime.explain.graph import Graph
from finedge.runtime.explain.grid import Places
from finedge.runtime.explain.maps import Panel
from finedge.runtime.explain.views import KINDS, ExplainOptions, FrameTensors, OpenView
from finedge.runtime.ort.backend import OnnxRuntimeBackend


@dataclass(frozen=True)
class Explained:
    """A frame as the network saw it, and what it made of it.

    Attributes:
        pixels: the crop, uint8 [crop, crop, 3] RGB.
        top: the answer, the best class first.
        panels: what there is to draw.
    """

    pixels: NDArray[np.uint8]
    top: tuple[Ranked, ...]
    panels: tuple[Panel, ...]


class Explainer:
    """Makes the panels of a bundle's views, from a copy of its model in memory.

        explainer = Explainer(Bundle.load("birds.finedge"))
        for panel in explainer(frame).panels:
            print(panel.title, panel.maps[0].peak)

    Args:
        bundle: the bundle to look into.
        variant: fp32, or int8: what the nodes of the INT8 file for ONNX Runtime read.

    Raises:
        BundleError: the bundle declares no views, or a view does not fit its graph.
    """

    def __init__(self, bundle: Bundle, *, variant: str = "fp32") -> None:
        _refuse_without_views(bundle)
        source, file = _files(bundle, variant)
        graph = Graph(fold(read_model(bundle.file(source)), CROSS_LAYER_ATTENTION))
        self.views: tuple[OpenView, ...] = tuple(
            _open(view, bundle, graph) for view in bundle.views
        )
        self._spec, self._places = bundle.spec, Places(graph)
        tensors = dict.fromkeys(tensor for view in self.views for tensor in view.tensors)
        taps = tuple(Tap(tensor, tensor) for tensor in tensors)
        session = OnnxRuntimeBackend().open_with_taps(replace(bundle, taps=taps), file=file)
        self._classifier = Classifier(bundle, session, variant)

    def __call__(
        self, frame: NDArray[np.uint8], options: ExplainOptions | None = None
    ) -> Explained:
        """Classify one frame (uint8 [H, W, 3] RGB, any size) and make the panels of every view."""
        batch = self._classifier.prepare([frame])
        outputs = self._classifier.session(batch)
        tensors = {name.removeprefix("tap/"): values for name, values in outputs.items()}
        inside = FrameTensors(self._spec, self._places, tensors, options or ExplainOptions())
        (top,) = self._classifier.rank(self._classifier.probabilities(inside.scores[None]))
        panels = tuple(panel for view in self.views for panel in view.panels(inside))
        return Explained(batch[0], top, panels)


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
