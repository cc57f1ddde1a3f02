"""A backbone as a chain of named blocks: a model can tap a block or insert a module after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from finedge.errors import UsageError, nearest


class Backbone(nn.Module):
    """Blocks that run one after the other; the last output is one feature map.

    Args:
        name: its name in `finedge.train.backbones.BACKBONES`.
        net: the network that owns the blocks; its classifier is left out. Module paths and
            state-dict keys stay those of `net`.
        chain: submodule paths of `net` in running order, e.g. ("conv1", "bn1", ..., "layer4.2").
        stages: the last block of each stage, shallow to deep, e.g. ("layer1.2", ..., "layer4.2").
        residual_ends: the last BatchNorm of every residual branch, in running order, e.g.
            ("layer1.0.bn3", ...).
        channels: of each block's output; None takes those of the last convolution up to its end.

    Attributes:
        prefix: what its keys have before those of the library, and of that library's files.
        left_out: keys of `net`'s state dict that the chain does not need. Files of weights may
            have them.

    Shapes: normalised images float [B, 3, H, W] -> [B, feature_channels, h, w].
    """

    def __init__(
        self,
        name: str,
        *,
        net: nn.Module,
        chain: Sequence[str],
        stages: Sequence[str],
        residual_ends: Sequence[str] = (),
        channels: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.chain, self.stages, self.residual_ends = (
            tuple(chain),
            tuple(stages),
            tuple(residual_ends),
        )
        self._frozen = 0
        for top in dict.fromkeys(block.split(".")[0] for block in chain):
            self.add_module(top, net.get_submodule(top))
        # Counted now, because a model may later add layers to the blocks.
        self._channels = dict(channels or {block: self._count_channels(block) for block in chain})
        self.prefix = ""
        self.left_out: frozenset[str] = frozenset()

    @property
    def feature_channels(self) -> int:
        """Channels of the last feature map."""
        return self.channels(self.chain[-1])

    def channels(self, block: str) -> int:
        """Return the channels of a block's output."""
        self._index(block)
        return self._channels[block]

    def run(
        self,
        x: Tensor,
        *,
        after: str | None = None,
        until: str | None = None,
        taps: Collection[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run a part of the chain.

        Args:
            x: the input of the first block of the part: normalised images float [B, 3, H, W], or
                the output of block `after`.
            after: start after this block (None: at the images).
            until: stop after this block (None: at the end).
            taps: blocks of this part whose outputs are returned.

        Returns:
            The last output, and {block: its output [B, C, h, w]} for the taps.
        """
        first = 0 if after is None else self._index(after) + 1
        last = len(self.chain) if until is None else self._index(until) + 1
        tapped: dict[str, Tensor] = {}
        for name in self.chain[first:last]:
            x = self.get_submodule(name)(x)
            if name in taps:
                tapped[name] = x
        return x, tapped

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map [B, feature_channels, h, w] of images [B, 3, H, W]."""
        return self.run(images)[0]

    def freeze(self, stages: int) -> None:
        """Freeze the stem and the first `stages` stages, and nothing else; 0 freezes nothing.

        Frozen parameters get no gradient. Frozen BatchNorm keeps its statistics, also after
        `.train()`.
        """
        if not 0 <= stages <= len(self.stages):
            raise UsageError(
                f"freeze {stages}", expected=f"0 to {len(self.stages)} stages of this backbone"
            )
        self._freeze_until(self.stages[stages - 1] if stages else None)

    def _freeze_until(self, block: str | None) -> None:
        """Freeze all blocks up to this one, and nothing else; None freezes nothing."""
        self._frozen = 0 if block is None else self._index(block) + 1
        for index, name in enumerate(self.chain):
            self.get_submodule(name).requires_grad_(index >= self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode of all blocks but the frozen ones, which stay in evaluation mode."""
        super().train(mode)
        for name in self.chain[: self._frozen]:
            self.get_submodule(name).eval()
        return self

    def _count_channels(self, block: str) -> int:
        """Return the channels of the last convolution up to the end of a block."""
        for name in reversed(self.chain[: self._index(block) + 1]):
            convolutions = [
                m for m in self.get_submodule(name).modules() if isinstance(m, nn.Conv2d)
            ]
            if convolutions:
                return convolutions[-1].out_channels
        raise UsageError(
            f"no convolution up to block '{block}'",
            expected="a chain that starts with a convolution",
        )

    def _index(self, block: str) -> int:
        if block not in self.chain:
            raise UsageError(f"unknown block '{block}'", expected=nearest(block, self.chain))
        return self.chain.index(block)
