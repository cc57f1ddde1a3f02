"""The kinds of view a bundle can declare: which tensors each needs, and the panels made of them.

A newcomer is a class with `open`, `tensors` and `panels`, and a line in `KINDS`.
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
        at: one query position of attention, (x, y) in [0, 1] of the crop; None is the mean over all.
        label: the class whose evidence is shown, as an index; None is the predicted one.
        contrast: also show what speaks for that class rather than for the best other one.
    """

    at: tuple[float, float] | None = None
    label: int | None = None
    contrast: bool = False


@dataclass(frozen=True)
class Seen:
    """One frame inside the network: tensors by name, [1, ...] each."""

    spec: Spec
    places: Places
    tensors: Mapping[str, Array]
    wish: ExplainOptions

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
        found: Array = values[0].astype(np.float64)
        return found

    def grid(self, name: str) -> Grid:
        """Return where the positions of a feature map lie on the crop."""
        size = self.spec.input
        return self.places.grid(
            name, shape=self.map(name).shape[1:], frame=(size.height, size.width)
        )


class Picture(Protocol):
    """An opened view."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that `panels` reads."""

    def panels(self, seen: Seen) -> list[Panel]:
        """Return what there is to draw of one frame."""


@dataclass(frozen=True)
class AttentionPicture:
    """Where the queries of a cross-layer attention look, on the grid of its keys."""

    view: View
    node: AttentionNode

    @classmethod
    def open(cls, view: View, tensor: str, *, graph: Graph, spec: Spec) -> AttentionPicture:
        """Find the op that makes the tensor."""
        return cls(view, graph.attention(tensor))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The queries and the keys."""
        return self.node.query, self.node.key

    def panels(self, seen: Seen) -> list[Panel]:
        """Return one panel: the mean over the queries, or the one query that was asked for."""
        k = seen.map(self.node.key)
        weights = attention_weights(seen.map(self.node.query), k, scale=self.node.scale)
        queries = len(weights)
        each = float(effective_positions(weights).mean())
        shown, note, mark = (
            weights.mean(axis=0),
            f"mean of {queries} queries, each over {each:.0f}",
            None,
        )
        if seen.wish.at is not None:
            index, mark = self._asked(seen, seen.wish.at)
            shown, note = weights[index], "one query, marked +"
        heat = HeatMap(shown.reshape(k.shape[1:]), seen.grid(self.node.key))
        numbers = {"queries": queries, "effective_per_query": each}
        return [
            Panel(
                self.view,
                self.view.label,
                note,
                (heat,),
                "share",
                full_scale([heat.values], "share"),
                mark,
                numbers,
            )
        ]

    def _asked(self, seen: Seen, at: tuple[float, float]) -> tuple[int, tuple[float, float]]:
        """Return the query centred nearest to a point: its index and its centre in pixels of the crop."""
        grid, (height, width) = seen.grid(self.node.query), seen.map(self.node.query).shape[1:]
        column = grid.x.nearest(at[0] * seen.spec.input.width, size=width)
        row = grid.y.nearest(at[1] * seen.spec.input.height, size=height)
        return row * width + column, (grid.x.at(column), grid.y.at(row))


@dataclass(frozen=True)
class MaskPicture:
    """K maps of numbers >= 0, as the model multiplies with them."""

    view: View
    tensor: str

    @classmethod
    def open(cls, view: View, tensor: str, *, graph: Graph, spec: Spec) -> MaskPicture:
        """Take the tap as it is."""
        return cls(view, tensor)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tap."""
        return (self.tensor,)

    def panels(self, seen: Seen) -> list[Panel]:
        """Return the mean of the maps, and for more than one also all of them."""
        values, grid = seen.map(self.tensor), seen.grid(self.tensor)
        unit = unit_of(values)
        heads = tuple(HeatMap(v, grid) for v in values)
        whole = HeatMap(values.mean(axis=0), grid)
        note = "" if len(heads) == 1 else f"mean of {len(heads)} heads"
        panels = [
            Panel(
                self.view, self.view.label, note, (whole,), unit, full_scale([whole.values], unit)
            )
        ]
        if len(heads) > 1:
            panels.append(
                Panel(
                    self.view,
                    self.view.label,
                    f"its {len(heads)} heads",
                    heads,
                    unit,
                    full_scale([h.values for h in heads], unit),
                )
            )
        return panels


@dataclass(frozen=True)
class EvidencePicture:
    """A class activation map (Zhou et al., CVPR 2016): sum_c weight[class, c] feature[c], whose mean over the positions is part of the logit."""

    view: View
    tensor: str
    linear: Linear

    @classmethod
    def open(cls, view: View, tensor: str, *, graph: Graph, spec: Spec) -> EvidencePicture:
        """Find the linear layer that makes the main output."""
        return cls(view, tensor, graph.linear(spec.main.name))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tap."""
        return (self.tensor,)

    def panels(self, seen: Seen) -> list[Panel]:
        """Return the class's evidence and, if asked for, what sets it apart from the best other class."""
        scores = seen.scores
        index = int(scores.argmax()) if seen.wish.label is None else seen.wish.label
        rival = int(np.where(np.arange(len(scores)) == index, -np.inf, scores).argmax())
        found, other = self._evidence(seen, index), self._evidence(seen, rival)
        full, labels = full_scale([found.values], "evidence"), seen.spec.labels
        panels = [
            self._panel(
                found,
                f"{self.view.label} {labels[index]}",
                full,
                score=float(scores[index]),
                label=labels[index],
            )
        ]
        if (
            seen.wish.contrast
        ):  # on the same scale: classes that are hard to tell apart give a faint picture
            apart = HeatMap(found.values - other.values, found.grid)
            title, lead = (
                f"for {labels[index]} rather than {labels[rival]}",
                float(scores[index] - scores[rival]),
            )
            panels.append(
                self._panel(
                    apart, title, full, score=lead, label=labels[index], rather_than=labels[rival]
                )
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

    def _evidence(self, seen: Seen, index: int) -> HeatMap:
        features = seen.map(self.tensor)
        weight = self.linear.weight[index, : len(features)].astype(np.float64)
        return HeatMap(np.tensordot(weight, features, axes=1), seen.grid(self.tensor))


KINDS: dict[str, type[AttentionPicture] | type[MaskPicture] | type[EvidencePicture]] = {
    "attention": AttentionPicture,
    "mask": MaskPicture,
    "cam": EvidencePicture,
}
