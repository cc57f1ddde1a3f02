"""Graph passes, each an exact rewrite, one a file; `apply_passes` runs them in order."""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from finedge.export.passes.fold_responses import FoldResponsesPass
from finedge.export.passes.global_pool import GlobalPoolPass

# What `apply_passes` does, for the bundle's provenance.
NAMES = (
    "theta once (common subexpressions)",
    "fold z and BatchNorm of all responses into one convolution",
    "spatial mean as GlobalAveragePool",
)


def apply_passes(model: ir.Model, *, keep: Set[str] = frozenset()) -> None:
    """Rewrite `model` in place; tensors named in `keep` (the taps) stay what they are."""
    protected = [v for n in model.graph.all_nodes() for v in n.outputs if v.name in keep]
    model.graph.outputs.extend(protected)  # an output is never merged away
    for rewrite in (CommonSubexpressionEliminationPass(), FoldResponsesPass(), GlobalPoolPass(), RemoveUnusedNodesPass()):
        rewrite(model)
    if protected:
        del model.graph.outputs[-len(protected) :]
