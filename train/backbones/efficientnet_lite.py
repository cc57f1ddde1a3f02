"""EfficientNet-Lite0/1/2 as timm builds them: ReLU6 and no squeeze-excite, made for INT8."""

from __future__ import annotations

import timm
from torch import nn

from finedge.train.backbones.base import Backbone


def efficientnet_lite(name: str) -> Backbone:
    """Build a Lite network with random weights.

    Its blocks: conv_stem, bn1, blocks.0.0 ... blocks.6.N, conv_head, bn2.
    """
    return inverted_residual_chain(name, net=timm.create_model(f"tf_{name}"))


def efficientnet_lite_s16(name: str) -> Backbone:
    """Build a Lite network that stops at stride 16 (blocks.4), with a fifth of the weights.

    It is for small devices and small bundles.
    """
    net = timm.create_model(f"tf_{name.removesuffix('_s16')}")
    net.blocks = nn.Sequential(*list(net.get_submodule("blocks").children())[:5])
    return inverted_residual_chain(name, net=net, head=())


def inverted_residual_chain(
    name: str, *, net: nn.Module, head: tuple[str, ...] = ("conv_head", "bn2")
) -> Backbone:
    """Return timm's inverted-residual networks as a chain.

    timm counts seven groups of blocks. A stage here is all blocks with the same stride, so groups
    3+4 (stride 16) and 5+6 (stride 32) are one stage each: five stages at strides 2, 4, 8, 16, 32.
    """
    children = net.get_submodule("blocks").children()
    groups = [len(group) for group in children]  # type: ignore[arg-type]
    inner = [
        f"blocks.{group}.{block}" for group, depth in enumerate(groups) for block in range(depth)
    ]
    return Backbone(
        name,
        net=net,
        chain=["conv_stem", "bn1", *inner, *head],
        stages=[
            f"blocks.{group}.{groups[group] - 1}"
            for group in (0, 1, 2, 4, 6)
            if group < len(groups)
        ],
        residual_ends=[
            f"{block}.{_last_norm(net.get_submodule(block))}"
            for block in inner
            if net.get_submodule(block).has_skip
        ],
    )


def _last_norm(block: nn.Module) -> str:
    """Return the name of a block's last BatchNorm.

    timm's blocks without an expansion have only two.
    """
    return "bn3" if hasattr(block, "bn3") else "bn2"
