"""Parameters and multiply-accumulates of a model, counted on meta tensors: no memory, no weights.

1 GMAC is 10^9 multiply-accumulates of the convolutions and matrix products of one image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from finedge.train.models import FineGrained, build_model

CLASSES = 200
SIZES = (224, 448)


def cost(
    model: str, *, backbone: str, num_classes: int = CLASSES, **options: Any
) -> dict[str, Any]:
    """Return {"parameters": int, "gmac": {"224": float, "448": float}} of a model."""
    with torch.device("meta"):
        network = build_model(model, num_classes=num_classes, backbone=backbone, **options)
    gmac = {str(size): round(macs(network, height=size, width=size) / 1e9, 3) for size in SIZES}
    return {"parameters": sum(p.numel() for p in network.parameters()), "gmac": gmac}


def macs(network: FineGrained, *, height: int, width: int) -> int:
    """Count the multiply-accumulates of one image, in evaluation mode; `network` is on meta."""
    formulas = {
        torch.ops.finedge.cross_layer_attention: _attention_flops,
        torch.ops.finedge.channel_attention: _channel_attention_flops,
    }
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with _without_elementwise(network), counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, height, width, device="meta"))
    return int(counter.get_total_flops()) // 2


@contextlib.contextmanager
def _without_elementwise(network: nn.Module) -> Iterator[None]:
    """Let norms and activations return what they take: they multiply nothing that is counted.

    PyTorch computes them on meta through several functions in Python, which took most of the time.
    """
    passed = [m for m in network.modules() if isinstance(m, _BatchNorm | nn.ReLU | nn.ReLU6)]
    for module in passed:
        module.forward = _same  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        for module in passed:
            del module.forward


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Two matrix products, q^T k and v p^T; the counter passes the shapes [B, C, H, W]."""
    queries, keys = q[2] * q[3], k[2] * k[3]
    flops: int = 2 * q[0] * queries * keys * (q[1] + v[1])
    return flops


def _channel_attention_flops(
    q: Any, k: Any, v: Any, groups: int, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    """Two matrix products in each group of c channels, q k^T and p v."""
    channels = q[1] // groups
    flops: int = 2 * q[0] * groups * channels * channels * (q[2] * q[3] + v[2] * v[3])
    return flops
