"""The kinds of view that a bundle can declare: the tensors that each needs, and its panels.

A new kind is a class with `open`, `tensors` and `panels`, and a line in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from finedge.bundle import View
from finedge.errors import BundleError
from finedge.graph.attention import AttentionNode
from finedge.runtime.explain.graph import Graph, Linear
from finedge.runtime.explain.grid import Grid, Places
from finedge.runtime.explain.maps import (
    Array,
    HeatMap,
    Panel,
    Unit,
    attention_weights,
    effective_positions,
    full_scale,
    unit_of,
)
from finedge.spec import Spec


@dataclass(frozen=True)
class ExplainOptions:
    """What to show.

    Attributes:
        at: a query position of attention, (x, y) in [0, 1] of the crop; None is the mean over all.
        label: the class whose evidence is shown, as an index; None is the predicted one.
        contrast: also show the evidence for that class rather than for the best other one.
    """

    at: tuple[float, float] | None = None
    label: int | None = None
    contrast: bool = False


@dataclass(frozen=True)
class FrameTensors:
    """One frame inside the network: tensors by name, [1, ...] each."""

    spec: Spec
    places: Places
    tensors: Mapping[str, Array]
    options: ExplainOptions

    @property
    def scores(self) -> Array:
        """The deciding output, [classes]."""
        scores: Array = self.tensors[self.spec.main.name][0]
        return scores

    def map(self, name: str) -> Array:
        """Return a feature map, float64 [C, h, w]."""
        values = self.tensors[name]
        if values.ndim != 4:
            raise BundleError(
                f"tensor {name} has shape {list(values.shape)}",
                expected="a feature map [B, C, h, w]",
                fix="export again",
            )
        feature_map: Array = values[0].astype(np.float64)
        return feature_map

    def grid(self, name: str) -> Grid:
        """Return where the positions of a feature map lie on the crop."""
        shape, size = self.map(name).shape[1:], self.spec.input
        return self.places.grid(name, shape=shape, frame=(size.height, size.width))


class OpenView(Protocol):
    """A view of an open model."""

    @property
    def view(self) -> View:
        """What the bundle declares."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that `panels` reads."""

    def heat(self, inside: FrameTensors) -> HeatMap:
        """Return the one map that stands for the view."""

    def panels(self, inside: FrameTensors) -> list[Panel]:
        """Return what there is to draw of one frame."""


@dataclass(frozen=True)
class AttentionView:
    """Where the queries of a cross-layer attention look, on the grid of its keys."""

    view: View
    node: AttentionNode

    @classmethod
    def open(cls, view: View, tensor: str, *, graph: Graph, spec: Spec) -> AttentionView:
        """Find the op that makes the tensor."""
        return cls(view, graph.attention(tensor))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The queries and the keys."""
        return self.node.query, self.node.key

    def heat(self, inside: FrameTensors) -> HeatMap:
        """Return the mean over the queries."""
        return self._on_keys(inside, self._weights(inside).mean(axis=0))

    def panels(self, inside: FrameTensors) -> list[Panel]:
        """Return one panel: the mean over the queries, or the one query of `options.at`."""
        weights = self._weights(inside)
        queries, spread = len(weights), float(effective_positions(weights).mean())
        values, mark = weights.mean(axis=0), None
        note = f"mean of {queries} queries, each spread over {spread:.0f}"
        if inside.options.at is not None:
            index, mark = self._nearest_query(inside, inside.options.at)
            values, note = weights[index], "one query, marked +"
        heat = self._on_keys(inside, values)
        return [
            Panel(
                self.view,
                self.view.label,
                note,
                (heat,),
                "share",
                full_scale([heat.values], "share"),
                mark,
                {"queries": queries, "effective_per_query": spread},
            )
        ]

    def _weights(self, inside: FrameTensors) -> Array:
        query, key = inside.map(self.node.query), inside.map(self.node.key)
        return attention_weights(query, key, scale=self.node.scale)

    def _on_keys(self, inside: FrameTensors, values: Array) -> HeatMap:
        """Return weights [keys] as a map."""
        shape = inside.map(self.node.key).shape[1:]
        return HeatMap(values.reshape(shape), inside.grid(self.node.key))

    def _nearest_query(
        self, inside: FrameTensors, at: tuple[float, float]
    ) -> tuple[int, tuple[float, float]]:
        """Return the query nearest to a point: its index, and its centre in pixels of the crop."""
        grid, size = inside.grid(self.node.query), inside.spec.input
        height, width = inside.map(self.node.query).shape[1:]
        column = grid.x.nearest(at[0] * size.width, size=width)
        row = grid.y.nearest(at[1] * size.height, size=height)
        return row * width + column, (grid.x.at(column), grid.y.at(row))


@dataclass(frozen=True)
class MaskView:
    """K maps of numbers >= 0, by which the model multiplies its features."""

    view: View
    tensor: str

    @classmethod
    def open(cls, view: View, tensor: str, *, graph: Graph, spec: Spec) -> MaskView:
        """Take the tap as it is."""
        return cls(view, tensor)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tap."""
        return (self.tensor,)

    def heat(self, inside: FrameTensors) -> HeatMap:
        """Return the mean of the maps."""
        return HeatMap(inside.map(self.tensor).mean(axis=0), inside.grid(self.tensor))

    def panels(self, inside: FrameTensors) -> list[Panel]:
        """Return the mean of the maps, and for more than one also all of them."""
        values, mean = inside.map(self.tensor), self.heat(inside)
        heads = tuple(HeatMap(head, mean.grid) for head in values)
        unit = unit_of(values)
        if len(heads) == 1:
            return [self._panel((mean,), unit, note="")]
        return [
            self._panel((mean,), unit, note=f"mean of {len(heads)} heads"),
            self._panel(heads, unit, note=f"its {len(heads)} heads"),
        ]

    def _panel(self, maps: tuple[HeatMap, ...], unit: Unit, *, note: str) -> Panel:
        full = full_scale([heat.values for heat in maps], unit)
        return Panel(self.view, self.view.label, note, maps, unit, full)


@dataclass(frozen=True)
class EvidenceView:
    """A class activation map (Zhou et al., CVPR 2016): sum_c weight[class, c] feature[c].

    Its mean over the positions is a part of the logit.
    """

    view: View
    tensor: str
    linear: Linear

    @classmethod
    def open(cls, view: View, tensor: str, *, graph: Graph, spec: Spec) -> EvidenceView:
        """Find the linear layer that makes the main output."""
        return cls(view, tensor, graph.linear(spec.main.name))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tap."""
        return (self.tensor,)

    def heat(self, inside: FrameTensors) -> HeatMap:
        """Return the evidence for the class of `options.label`, or for the predicted one."""
        label = inside.options.label
        return self._evidence(inside, int(inside.scores.argmax()) if label is None else label)

    def panels(self, inside: FrameTensors) -> list[Panel]:
        """Return the evidence for a class; with `options.contrast` also its lead over a rival.

        The rival is the best other class. Both panels have one scale: classes that are hard to tell
        apart give a faint picture.
        """
        scores, labels, options = inside.scores, inside.spec.labels, inside.options
        index = int(scores.argmax()) if options.label is None else options.label
        heat, label = self.heat(inside), labels[index]
        full = full_scale([heat.values], "evidence")
        title = f"{self.view.label} {label}"
        panels = [self._panel(heat, title, full, score=float(scores[index]), label=label)]
        if options.contrast:
            rival = int(np.where(np.arange(len(scores)) == index, -np.inf, scores).argmax())
            other = labels[rival]
            lead = HeatMap(heat.values - self._evidence(inside, rival).values, heat.grid)
            title = f"for {label} rather than {other}"
            score = float(scores[index] - scores[rival])
            panels.append(
                self._panel(lead, title, full, score=score, label=label, rather_than=other)
            )
        return panels

    def _panel(
        self, heat: HeatMap, title: str, full: float, *, score: float, **names: str
    ) -> Panel:
        part = float(heat.values.mean())
        kind = "lead" if "rather_than" in names else "score"
        numbers: dict[str, float | str] = {**names, kind: score, "part": part}
        return Panel(
            self.view,
            title,
            f"mean {part:.2f}; the {kind} is {score:.2f}",
            (heat,),
            "evidence",
            full,
            None,
            numbers,
        )

    def _evidence(self, inside: FrameTensors, index: int) -> HeatMap:
        features = inside.map(self.tensor)
        weight = self.linear.weight[index, : len(features)].astype(np.float64)
        return HeatMap(np.tensordot(weight, features, axes=1), inside.grid(self.tensor))


KINDS: dict[str, type[AttentionView] | type[MaskView] | type[EvidenceView]] = {
    "attention": AttentionView,
    "mask": MaskView,
    "cam": EvidenceView,
}
