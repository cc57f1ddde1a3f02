"""The cross-layer non-local module of CNL (Ye et al., ICIP 2020, arXiv 2005.09153)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from finedge.errors import UsageError
from finedge.train.layers.cross_layer_attention import CrossLayerAttention
from finedge.train.layers.pooling import halved
from finedge.train.layers.uniform import Attention, without_gradient

Layout = Literal["aligned", "published"]


class CrossLayerNonLocal(nn.Module):
    """Add to a query map what it gathers from several response maps.

    X + sum_r BN_r(z(attention(theta(X), phi_r(X_r), g_r(X_r)))).

    theta (run once) and z are shared by the responses; all projections are 1x1 convolutions without
    bias. Every BN starts with gamma = beta = 0, so the module starts as the identity; the
    convolutions start normal(0, 0.01).

    Shapes: query [B, C, Hq, Wq], responses [B, C_r, H_r, W_r] -> [B, C, Hq, Wq].

    Args:
        query: channels C of the query map.
        responses: channels of each response map.
        width: d, the channels of the attention; the scale is 1/sqrt(d).
        joint: one softmax over the positions of all responses (the figure of the paper), not one
            for each response (its code).
        pooled_keys: keys and values are projections of the max pooled (2 x 2) response: a quarter
            of the positions. Wang et al. (CVPR 2018, arXiv 1711.07971, section 3.3) sub-sample x
            itself too, and so the projections can still be absorbed at export.
        layout: `aligned` puts each answer at the position of its query, as the paper says.
            `published` is what the authors' code does: its product is [B, Hq Wq, d] and is viewed
            as [B, d, Hq, Wq] without a transpose, which scrambles positions and channels.
        norms: a BatchNorm on each response, before its projections. For responses that do not come
            after a ReLU: the linear bottlenecks of EfficientNet-Lite0 have standard deviations of
            8.6, 7.1 and 3.0. Export folds it into the projections.
        attention: with `uniform` theta and phi are there, but have no effect and are not trained.
    """

    def __init__(
        self,
        query: int,
        *,
        responses: Sequence[int],
        width: int,
        joint: bool = False,
        pooled_keys: bool = False,
        layout: Layout = "aligned",
        norms: bool = False,
        attention: Attention = "softmax",
    ) -> None:
        super().__init__()
        if layout not in get_args(Layout):
            expected = f"one of {', '.join(get_args(Layout))}"
            raise UsageError(f"unknown layout '{layout}'", expected=expected)
        self.layout = layout
        self.joint = joint
        self.pooled_keys = pooled_keys
        self.theta = nn.Conv2d(query, width, 1, bias=False)
        self.phi = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=False) for channels in responses
        )
        self.g = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for channels in responses)
        self.z = nn.Conv2d(width, query, 1, bias=False)
        self.attend = nn.ModuleList(
            CrossLayerAttention(scale=width**-0.5, attention=attention)
            for _ in ([None] if joint else responses)
        )
        self.bn = nn.ModuleList(nn.BatchNorm2d(query) for _ in ([None] if joint else responses))
        self.apply(_start)
        # After `_start`, which would set their weights to zero.
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in responses) if norms else None
        if attention == "uniform":
            without_gradient(self.theta, self.phi)

    def forward(self, query: Tensor, responses: Sequence[Tensor]) -> Tensor:
        """Return [B, C, Hq, Wq] of a query map [B, C, Hq, Wq] and responses of any size."""
        theta = self.theta(query)
        if self.pooled_keys:
            responses = [halved(x) for x in responses]
        if self.norms is not None:
            responses = [norm(x) for norm, x in zip(self.norms, responses, strict=True)]
        keys = [phi(x) for phi, x in zip(self.phi, responses, strict=True)]
        values = [g(x) for g, x in zip(self.g, responses, strict=True)]
        if self.joint:
            keys, values = [_positions(keys)], [_positions(values)]
        for attend, k, v, bn in zip(self.attend, keys, values, self.bn, strict=True):
            gathered = attend(theta, k, v)
            if self.layout == "published":
                gathered = _scrambled(gathered)
            query = query + bn(self.z(gathered))
        return query


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.zeros_(module.weight)


def _scrambled(gathered: Tensor) -> Tensor:
    """[B, d, H, W] -> its transpose [B, H W, d], read as [B, d, H, W] (CNL's published code)."""
    return gathered.flatten(2).transpose(1, 2).reshape(gathered.shape)


def _positions(maps: Sequence[Tensor]) -> Tensor:
    """[B, d, H_r, W_r] each -> [B, d, 1, sum of H_r W_r]."""
    return torch.cat([x.flatten(2) for x in maps], dim=2).unsqueeze(2)
