"""The float ONNX files of a bundle: one function, in the cheapest form for each use."""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir

from finedge.bundle import FLOAT_FILE, HALF_FILE, PROJECTED_FILE, Tap
from finedge.export.cost import ModelCost
from finedge.export.passes import absorb
from finedge.graph.edit import with_unique_names
from finedge.graph.float16 import convert_float16
from finedge.graph.keep_float32 import keep_float32

log = logging.getLogger(__name__)


def onnx_files(
    graph: ir.Model, cost: ModelCost, taps: tuple[Tap, ...]
) -> dict[str, onnx.ModelProto]:
    """Return the files by name: FLOAT_FILE, HALF_FILE, and perhaps PROJECTED_FILE.

    INT8 is made of PROJECTED_FILE; it is there only where INT8 is cheaper in another form.
    FLOAT_FILE and HALF_FILE have the same form: both count MACs alike. The taps are tensors of
    FLOAT_FILE and of PROJECTED_FILE.
    """
    keep = {tap.tensor for tap in taps}
    files = {FLOAT_FILE: ir.to_proto(absorb(graph, cost.absorbed("fp32"), keep=keep))}
    if cost.absorbed("int8") != cost.absorbed("fp32"):
        files[PROJECTED_FILE] = ir.to_proto(absorb(graph, cost.absorbed("int8"), keep=keep))
    return {**files, HALF_FILE: float16_file(files[FLOAT_FILE])}


def float16_file(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float model in float16: uint8 in, float32 out.

    Attention is in float16; normalisers and probabilities are in float32.
    """
    named = with_unique_names(model)
    reasons = keep_float32(named.graph)
    log.info("model.fp16.onnx: %d of %d nodes stay float32", len(reasons), len(named.graph.node))
    for name, reason in reasons.items():
        log.debug("%s stays float32: %s", name, reason)
    return convert_float16(named, keep=reasons)
