"""WRN-28-10, WRN-40-10 and WRN-16-1 for images of 32 pixels.

Zagoruyko and Komodakis, arXiv 1605.07146; details are from the authors' code.
"""

from __future__ import annotations

from torch import Tensor, nn

from finedge.train.backbones.base import Backbone

STEM = 16
WIDTHS = (16, 32, 64)  # of the three groups, times k


class Residual(nn.Module):
    """A pre-activation block: BatchNorm, ReLU, conv3x3, BatchNorm, ReLU, dropout, conv3x3, skip.

    In a block that changes the number of channels both branches read one activated map (authors'
    code). There the first BatchNorm and ReLU are a block of the chain, before this one.
    """

    def __init__(self, inside: int, outside: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.before = activated(inside) if inside == outside else nn.Identity()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout2d(dropout)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.skip = (
            nn.Identity()
            if inside == outside
            else nn.Conv2d(inside, outside, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, h, w] -> [B, outside, h / stride, w / stride]; not activated."""
        branch = self.conv2(self.dropout(self.relu(self.bn(self.conv1(self.before(x))))))
        added: Tensor = branch + self.skip(x)
        return added


def wide_resnet(name: str, *, dropout: float = 0.0) -> Backbone:
    """Build `wrn_DEPTH_K` with random weights.

    Its blocks: conv1, norm0, group1.0 ..., norm1, group2.0 ..., norm2, group3.0 ..., norm3. Stages
    have strides 1, 2, 4. All convolutions start Kaiming normal.

    A stage ends in its norm (BatchNorm and ReLU), which Attend and Rectify (arXiv 1807.07320) taps.
    Between groups the norm is the pre-activation of the next group's first block. In that paper's
    code it feeds the convolutions only, and the 1x1 skip reads the map before it. Here both read
    it, as in the code of WRN: otherwise the network is not a chain. That code's second BatchNorm
    and ReLU after the first convolution are also left out.

    Args:
        name: DEPTH is 6 n + 4 for n blocks in a group.
        dropout: of whole channels between the convolutions of a block, 0..1, as in the code of
            Attend and Rectify (WRN drops single values).
    """
    depth, k = (int(part) for part in name.split("_")[1:3])
    blocks = (depth - 4) // 6
    groups = {
        f"norm{group}": [f"group{group}.{block}" for block in range(blocks)] for group in (1, 2, 3)
    }
    return Backbone(
        name,
        net=_net(blocks, [k * width for width in WIDTHS], dropout=dropout),
        chain=[
            "conv1",
            "norm0",
            *(block for norm, group in groups.items() for block in (*group, norm)),
        ],
        stages=list(groups),
        residual_ends=[f"{block}.bn" for group in groups.values() for block in group],
    )


def activated(channels: int) -> nn.Sequential:
    """Return BatchNorm and ReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _net(blocks: int, widths: list[int], *, dropout: float) -> nn.Module:
    net = nn.Module()
    net.conv1 = nn.Conv2d(3, STEM, 3, padding=1, bias=False)
    # In WRN-d-1 the first block keeps the stem's channels.
    net.norm0 = nn.Identity() if widths[0] == STEM else activated(STEM)
    for group, (inside, outside) in enumerate(zip((STEM, *widths[:-1]), widths, strict=True), 1):
        first = Residual(inside, outside, stride=1 if group == 1 else 2, dropout=dropout)
        rest = (Residual(outside, outside, stride=1, dropout=dropout) for _ in range(blocks - 1))
        net.add_module(f"group{group}", nn.Sequential(first, *rest))
        net.add_module(f"norm{group}", activated(outside))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net
