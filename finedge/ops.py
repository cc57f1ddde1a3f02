"""The operators that finedge adds to ONNX: one record each, with a numpy reference.

Every implementation is tested against its reference:

- the torch op and layer (`train/layers/`),
- the ONNX node and model-local function (`export/ops/`),
- the TensorRT plugin (`runtime/trt/plugin/`).

No op may have the name of an ONNX op, in any domain: TensorRT's parser looks only at the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DOMAIN = "finedge"


@dataclass(frozen=True)
class Op:
    """An operator.

    Attributes:
        name: the ONNX op type.
        version: of the operator, in its domain.
        inputs: the names of its inputs.
        attributes: the type of each attribute.
        reference: the operator in plain numpy.
        domain: the ONNX domain.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    attributes: Mapping[str, type]
    reference: Callable[..., NDArray[np.floating]]
    domain: str = field(default=DOMAIN)


def softmax(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Softmax over the last axis, in the dtype of `x`."""
    e: NDArray[np.floating] = np.exp(x - x.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.floating] = e / e.sum(axis=-1, keepdims=True)
    return probabilities


def cross_layer_attention(
    q: NDArray[np.floating], k: NDArray[np.floating], v: NDArray[np.floating], *, scale: float
) -> NDArray[np.floating]:
    """Attend from the positions of one layer to those of another (CNL, arXiv 2005.09153).

    This is one response of the paper.

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


def channel_attention(
    q: NDArray[np.floating],
    k: NDArray[np.floating],
    v: NDArray[np.floating],
    *,
    groups: int,
    scale: float,
) -> NDArray[np.floating]:
    """Mix the channels of a map by the similarity of the channels of two other maps.

    A channel attends only to the channels of its group.

    Args:
        q: [B, C, H, W] queries, one per channel; C is a multiple of `groups`.
        k: [B, C, H, W] keys.
        v: [B, C, Hv, Wv] values; their grid may differ.
        groups: G; group g holds the channels g C/G to (g + 1) C/G - 1.
        scale: factor on q k^T before the softmax over key channels. 1/sqrt(H W) keeps the
            product from growing with the grid.

    Returns:
        [B, C, Hv, Wv]: softmax(scale q k^T) v in each group.
    """
    batch, channels = q.shape[:2]
    rows, keys, values = (t.reshape(batch, groups, channels // groups, -1) for t in (q, k, v))
    weights = softmax(scale * rows @ keys.transpose(0, 1, 3, 2))
    return (weights @ values).reshape(v.shape)


CROSS_LAYER_ATTENTION = Op(
    "CrossLayerAttention", 1, ("q", "k", "v"), {"scale": float}, cross_layer_attention
)
CHANNEL_ATTENTION = Op(
    "ChannelAttention", 1, ("q", "k", "v"), {"groups": int, "scale": float}, channel_attention
)

OPS: dict[str, Op] = {op.name: op for op in (CROSS_LAYER_ATTENTION, CHANNEL_ATTENTION)}
