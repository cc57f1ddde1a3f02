"""Graph passes: each is an exact rewrite in a file of its own.

`apply_passes` runs those that always pay; `absorb` runs the one that is a choice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from finedge.export.passes.absorb_projections import AbsorbProjectionsPass
from finedge.export.passes.broadcast import BroadcastPass
from finedge.export.passes.fold_norms import FoldNormsPass
from finedge.export.passes.fold_responses import FoldResponsesPass
from finedge.export.passes.global_pool import GlobalPoolPass
from finedge.export.passes.log_softmax import LogSoftmaxPass
from finedge.export.passes.unsqueeze import UnsqueezePass

# What `apply_passes` does, for the bundle's provenance.
NAMES = (
    "theta once (common subexpressions)",
    "fold a BatchNorm before projections into them",
    "fold z and BatchNorm of all responses into one convolution",
    "spatial mean as GlobalAveragePool",
    "log softmax written out, one axis an Unsqueeze, masks reshaped: forms that every reader "
    "computes right",
    "absorb key and value projections where cheaper",
)

# In this order.
ALWAYS = (
    CommonSubexpressionEliminationPass,
    FoldNormsPass,
    FoldResponsesPass,
    GlobalPoolPass,
    LogSoftmaxPass,
    UnsqueezePass,
    BroadcastPass,
    RemoveUnusedNodesPass,
)


def apply_passes(model: ir.Model, *, keep: Set[str] = frozenset()) -> None:
    """Rewrite `model` in place; tensors named in `keep` (the taps) stay what they are."""
    with _kept(model, keep):
        for rewrite in ALWAYS:
            rewrite()(model)


def absorb(model: ir.Model, nodes: Set[str], *, keep: Set[str] = frozenset()) -> ir.Model:
    """Return a copy of `model` in which the attention nodes of some names absorb their projections.

    Args:
        model: is not changed.
        nodes: the names.
        keep: tensors that stay what they are (the taps).
    """
    copy = model.clone()
    with _kept(copy, keep):
        for rewrite in (AbsorbProjectionsPass(nodes), RemoveUnusedNodesPass()):
            rewrite(copy)
    return copy


@contextlib.contextmanager
def _kept(model: ir.Model, names: Set[str]) -> Iterator[None]:
    """Make tensors outputs for a while: an output is never merged away."""
    kept = [v for n in model.graph.all_nodes() for v in n.outputs if v.name in names]
    count = len(model.graph.outputs)
    model.graph.outputs.extend(kept)
    try:
        yield
    finally:
        del model.graph.outputs[count:]
