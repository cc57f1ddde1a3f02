"""The operators finedge adds to ONNX: one record each, with the numpy reference every face of it is tested against.

Faces: torch op and layer (`train/layers/`), ONNX node and model-local function (`export/ops/`), TensorRT plugin
(`runtime/plugins/`). Op names must equal no ONNX op name in any domain: TensorRT's parser looks at the name only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DOMAIN = "finedge"


@dataclass(frozen=True)
class Op:
    """An operator: `attributes` maps a name to its type; `inputs` are formal names; `reference` is plain numpy."""

    name: str
    version: int
    inputs: tuple[str, ...]
    attributes: Mapping[str, type]
    reference: Callable[..., NDArray[np.floating]]
    domain: str = field(default=DOMAIN)


def softmax(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Softmax over the last axis, in the dtype of `x`."""
    e: NDArray[np.floating] = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: NDArray[np.floating] = e / e.sum(axis=-1, keepdims=True)
    return shares


def cross_layer_attention(q: NDArray[np.floating], k: NDArray[np.floating], v: NDArray[np.floating], *, scale: float) -> NDArray[np.floating]:
    """Attend from the positions of one layer to the positions of another (CNL, arXiv 2005.09153, one response).

    Args:
        q: [B, d, Hq, Wq] queries.
        k: [B, d, Hk, Wk] keys.
        v: [B, dv, Hk, Wk] values; may be `k` itself (the shared form).
        scale: factor on q^T k before the softmax over key positions; 1/sqrt(d) in the paper.

    Returns:
        [B, dv, Hq, Wq]: v softmax(scale q^T k)^T.
    """
    batch, _, height, width = q.shape
    flat_q, flat_k, flat_v = (t.reshape(batch, t.shape[1], -1) for t in (q, k, v))
    weights = softmax(scale * flat_q.transpose(0, 2, 1) @ flat_k)
    return (flat_v @ weights.transpose(0, 2, 1)).reshape(batch, v.shape[1], height, width)


CROSS_LAYER_ATTENTION = Op("CrossLayerAttention", 1, ("q", "k", "v"), {"scale": float}, cross_layer_attention)

OPS: dict[str, Op] = {op.name: op for op in (CROSS_LAYER_ATTENTION,)}
