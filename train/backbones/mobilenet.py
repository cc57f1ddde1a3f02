"""MobileNetV2 at 0.35 of its width (arXiv 1801.04381), as timm builds it.

It is small enough for tests and for a shipped bundle.
"""

from __future__ import annotations

import timm

from finedge.train.backbones.base import Backbone
from finedge.train.backbones.efficientnet_lite import inverted_residual_chain


def mobilenetv2(name: str) -> Backbone:
    """Build the network with random weights; blocks and stages are as in `efficientnet_lite`."""
    return inverted_residual_chain(name, net=timm.create_model(name))
