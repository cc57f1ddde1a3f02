"""A bundle's float model, opened so that its views can be seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import FLOAT_FILE, Bundle, Tap, View
from finedge.errors import BundleError, nearest
from finedge.graph.folding import fold
from finedge.graph.onnx_file import read_model
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.classifier import Classifier, Ranked
from finedge.runtime.explain.graph import Graph
from finedge.runtime.explain.grid import Places
from finedge.runtime.explain.maps import Panel
from finedge.runtime.explain.views import KINDS, ExplainOptions, Picture, Seen
from finedge.runtime.ort.backend import OnnxRuntimeBackend


@dataclass(frozen=True)
class Explained:
    """A frame as the network saw it, uint8 [crop, crop, 3]; its answer, best first; what there is to draw."""

    pixels: NDArray[np.uint8]
    top: tuple[Ranked, ...]
    panels: tuple[Panel, ...]


class Explainer:
    """Shows the views of a bundle, from a copy of its float model in memory.

    Raises:
        BundleError: the bundle declares no views, or a view does not fit its graph.
    """

    def __init__(self, bundle: Bundle) -> None:
        if not bundle.views:
            raise BundleError(
                f"{bundle.path} declares no views: there is nothing to show",
                fix="finedge export RUN --out BUNDLE, with this version",
            )
        if bundle.spec.preprocess.frame is not None:
            raise BundleError(
                f"{bundle.path} takes whole frames: its maps lie on a crop inside the graph",
                fix="explain one exported without --frame",
            )
        graph = Graph(fold(read_model(bundle.file(FLOAT_FILE)), CROSS_LAYER_ATTENTION))
        self.pictures: tuple[Picture, ...] = tuple(
            _open(view, bundle, graph) for view in bundle.views
        )
        self._spec, self._places = bundle.spec, Places(graph)
        needed = dict.fromkeys(tensor for picture in self.pictures for tensor in picture.tensors)
        session = OnnxRuntimeBackend().open_with_taps(
            replace(bundle, taps=tuple(Tap(tensor, tensor) for tensor in needed))
        )
        self._classifier = Classifier(bundle, session, "fp32")

    def __call__(self, frame: NDArray[np.uint8], wish: ExplainOptions | None = None) -> Explained:
        """Classify one frame (uint8 [H, W, 3] RGB, any size) and look at every view."""
        batch = self._classifier.prepare([frame])
        tensors = {
            name.removeprefix("tap/"): values
            for name, values in self._classifier.session(batch).items()
        }
        seen = Seen(self._spec, self._places, tensors, wish or ExplainOptions())
        (top,) = self._classifier.rank(self._classifier.probabilities(seen.scores[None]))
        return Explained(
            batch[0],
            top,
            tuple(panel for picture in self.pictures for panel in picture.panels(seen)),
        )


def _open(view: View, bundle: Bundle, graph: Graph) -> Picture:
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
