"""ResNet-18/34/50/101, ResNeXt-50/101 and Wide-ResNet-50-2 as torchvision builds them.

Module paths are torchvision's.
"""

from __future__ import annotations

import torchvision

from finedge.train.backbones.base import Backbone

DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnext50_32x4d": (3, 4, 6, 3),
    "resnext101_32x8d": (3, 4, 23, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
}


def resnet(name: str) -> Backbone:
    """Build a ResNet, a ResNeXt or a Wide-ResNet with random weights.

    Its blocks: conv1, bn1, relu, maxpool, layer1.0 ... layer4.N. Its stages have strides 4, 8, 16,
    32.
    """
    depths = DEPTHS[name]
    residual = [
        f"layer{stage}.{block}" for stage, depth in enumerate(depths, 1) for block in range(depth)
    ]
    net = torchvision.models.get_model(name, weights=None)
    bottleneck = hasattr(net.get_submodule(residual[0]), "bn3")  # else a basic block
    last_norm = "bn3" if bottleneck else "bn2"
    return Backbone(
        name,
        net=net,
        chain=["conv1", "bn1", "relu", "maxpool", *residual],
        stages=[f"layer{stage}.{depth - 1}" for stage, depth in enumerate(depths, 1)],
        residual_ends=[f"{block}.{last_norm}" for block in residual],
    )
