"""The cost of a cross-layer attention in both of its forms, and the cheaper form at a precision.

It is counted from shapes. With Nq query and Nk key positions, C channels of the map of keys and
values, d channels of queries and keys, dv of values:

                  projections (1x1 convolutions)    attention (two matrix products)
    projected     Nk C (d + dv)                     Nq Nk (d + dv)
    absorbed      Nq C (d + dv)                     2 Nq Nk C

All numbers are multiply-accumulates, batch 1. They leave out what both forms share: the query's
projection, and the layers after the attention.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

import onnx_ir as ir
import torch

from finedge.export.passes.absorb_projections import attentions, read_key_and_value
from finedge.spec import Spec
from finedge.train.cost import macs
from finedge.train.models import build_model
from finedge.train.models.base import FineGrained

log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

# This many INT8 multiply-accumulates of a convolution take as long as one of attention in the INT8
# file for CPUs. Measured with CNL on ResNet-50 at 224 (x86 with VNNI, one thread, INT8 against INT8
# of plain; `benchmarks/cpu/attention_int8.py`): absorbed +17 % in the mode `int8`, +21 % in
# `scores`. All else is assumed to be as fast as in plain. Then 0.17 x 4089 MMAC = 155 + 103 + 138 f
# gives f = 3.2, and `scores` 4.4. Without INT8 products it was 13. A GPU was not measured.
ATTENTION_MAC_COST = 4


@dataclass(frozen=True)
class Form:
    """Multiply-accumulates of one form.

    Those of projections can be INT8 convolutions; those of attention are products of activations.
    """

    projections: int
    attention: int

    @property
    def macs(self) -> int:
        """All of them."""
        return self.projections + self.attention

    def cost(self, precision: Precision) -> int:
        """Return the weighted MACs: in INT8 those of attention weigh `ATTENTION_MAC_COST`.

        In floating point all weigh 1.
        """
        return (
            self.projections + (ATTENTION_MAC_COST if precision == "int8" else 1) * self.attention
        )


@dataclass(frozen=True)
class AttentionCost:
    """Both forms of one node; `absorbed` is None where the projections cannot be absorbed."""

    node: str
    projected: Form
    absorbed: Form | None

    def absorbs(self, precision: Precision) -> bool:
        """Tell whether the absorbed form is the cheaper one."""
        if self.absorbed is None:
            return False
        return self.absorbed.cost(precision) < self.projected.cost(precision)

    def form(self, precision: Precision) -> Form:
        """Return the cheaper form."""
        if self.absorbed is not None and self.absorbs(precision):
            return self.absorbed
        return self.projected


@dataclass(frozen=True)
class ModelCost:
    """The cost of a model.

    Attributes:
        nodes: its attention nodes.
        projected: its MACs with all of them projected.
        plain: the MACs of the model `plain` on the same backbone, without attention.
    """

    nodes: tuple[AttentionCost, ...]
    projected: int
    plain: int

    def absorbed(self, precision: Precision) -> frozenset[str]:
        """Return the names of the nodes to absorb at a precision."""
        return frozenset(n.node for n in self.nodes if n.absorbs(precision))

    def macs(self, precision: Precision) -> int:
        """Return the model's MACs in the form cheapest at a precision."""
        return self.projected - sum(n.projected.macs - n.form(precision).macs for n in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the provenance record; counts are MACs at batch 1."""
        nodes: list[dict[str, Any]] = [
            {**asdict(n), "absorbed_in": [p for p in PRECISIONS if n.absorbs(p)]}
            for n in self.nodes
        ]
        return {
            "attention_mac_cost": ATTENTION_MAC_COST,
            "nodes": nodes,
            "macs": {"plain": self.plain, **self._totals()},
        }

    def report(self) -> None:
        """Log a line a node and one for the model."""
        for node in self.nodes:
            chosen = ", ".join(p for p in PRECISIONS if node.absorbs(p)) or "no precision"
            log.info(
                "%s: projected %s, absorbed %s: absorbed in %s",
                node.node,
                _in_millions(node.projected),
                _in_millions(node.absorbed),
                chosen,
            )
        totals = ", ".join(
            f"{name} {macs / 1e6:.1f} ({macs / self.plain - 1:+.1%})"
            for name, macs in self._totals().items()
        )
        log.info("MMAC: plain %.1f, %s", self.plain / 1e6, totals)

    def _totals(self) -> dict[str, int]:
        each: dict[str, int] = {p: self.macs(p) for p in PRECISIONS}
        return {"projected": self.projected, **each}


def count(
    *, queries: int, keys: int, channels: int, width: int, value_width: int
) -> tuple[Form, Form]:
    """Count both forms, projected and absorbed.

    Args:
        queries: Nq.
        keys: Nk.
        channels: C.
        width: d.
        value_width: dv.
    """
    both = width + value_width
    projected = Form(keys * channels * both, queries * keys * both)
    return projected, Form(queries * channels * both, 2 * queries * keys * channels)


def attention_costs(model: ir.Model) -> tuple[AttentionCost, ...]:
    """Count every CrossLayerAttention of a model whose maps have known sizes."""
    costs = (_cost(node) for node in attentions(model.graph))
    return tuple(cost for cost in costs if cost is not None)


def count_cost(model: FineGrained, spec: Spec, graph: ir.Model) -> ModelCost:
    """Count a model's attention from its graph, and the MACs of all of it on meta tensors.

    The model `plain` on the same backbone is counted too.
    """
    with torch.device("meta"):
        plain = build_model("plain", num_classes=len(spec.labels), backbone=spec.backbone)
    projected, without = (
        macs(m, height=spec.input.height, width=spec.input.width)
        for m in (copy.deepcopy(model).to("meta"), plain)
    )
    return ModelCost(attention_costs(graph), projected, without)


def _cost(node: ir.Node) -> AttentionCost | None:
    query, key, value = (_sides(v) for v in node.inputs)
    if query is None or key is None or value is None:
        return None
    (width, queries), (_, keys), (value_width, _) = query, key, value
    name, projections = node.name or "", read_key_and_value(node)
    if projections is None:
        return AttentionCost(name, Form(0, queries * keys * (width + value_width)), None)
    channels = projections[0].weight.shape[1]
    forms = count(
        queries=queries, keys=keys, channels=channels, width=width, value_width=value_width
    )
    return AttentionCost(name, *forms)


def _sides(value: ir.Value | None) -> tuple[int, int] | None:
    """Return C and H * W of [B, C, H, W], or None where one is not known."""
    if value is None or value.shape is None or len(value.shape) != 4:
        return None
    sizes = [d for d in value.shape[1:] if isinstance(d, int)]
    return (sizes[0], prod(sizes[1:])) if len(sizes) == 3 else None


def _in_millions(form: Form | None) -> str:
    if form is None:
        return "-"
    return f"{form.projections / 1e6:.2f} + {form.attention / 1e6:.2f} MMAC"
