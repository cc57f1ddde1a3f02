"""`model.fp16.onnx`: the float model in float16, with what float16 would break left in float32."""

from __future__ import annotations

import logging

from onnx import ModelProto

from finedge.graph.float16 import convert_float16, with_names
from finedge.graph.keep_float32 import keep_float32

log = logging.getLogger(__name__)


def float16_file(model: ModelProto) -> ModelProto:
    """Return the float model in float16: uint8 in, float32 out, attention in float16, normalisers and probabilities in float32."""
    named = with_names(model)
    kept = keep_float32(named.graph)
    log.info("model.fp16.onnx: %d of %d nodes stay float32", len(kept), len(named.graph.node))
    for name, reason in kept.items():
        log.debug("%s stays float32: %s", name, reason)
    return convert_float16(named, keep=kept)
