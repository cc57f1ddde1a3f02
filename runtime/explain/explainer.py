"""A bundle's model, opened so that its views can be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.runtime.classifier import Classifier, Ranked
from finedge.runtime.explain.maps import Panel
from finedge.runtime.explain.open import open_views
from finedge.runtime.explain.views import ExplainOptions, OpenView
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
        self._opened = open_views(bundle, variant=variant)
        session = self._opened.session(OnnxRuntimeBackend())
        self._classifier = Classifier(bundle, session, variant)

    @property
    def views(self) -> tuple[OpenView, ...]:
        """The views, in the order of the bundle."""
        return self._opened.views

    def __call__(
        self, frame: NDArray[np.uint8], options: ExplainOptions | None = None
    ) -> Explained:
        """Classify one frame (uint8 [H, W, 3] RGB, any size) and make the panels of every view."""
        batch = self._classifier.prepare([frame])
        outputs = self._classifier.session(batch)
        inside = self._opened.inside(outputs, options=options or ExplainOptions())
        (top,) = self._classifier.rank(self._classifier.probabilities(inside.scores[None]))
        panels = tuple(panel for view in self.views for panel in view.panels(inside))
        return Explained(batch[0], top, panels)
