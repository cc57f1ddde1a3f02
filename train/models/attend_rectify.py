"""Attend and Rectify (Rodriguez et al., ECCV 2018, arXiv 1807.07320; TMM 2019, arXiv 1907.13075; details from the authors' published code)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finedge.bundle import View
from finedge.errors import UsageError
from finedge.spec import Output
from finedge.train.backbones import Backbone
from finedge.train.layers.attention_pooling import AttentionPooling, overlap
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.models.base import About, FineGrained

Gate = Literal["softmax", "sigmoid"]
# Their stages end in a ReLU. Those of the others are plain sums, 3 to 9 times the size on EfficientNet-Lite0: masks would start as single
# positions (mean peak 0.8 of 400 positions). With BatchNorm and ReLU in between, as in the WRN, modules trained on frozen Lite0 features
# of Grocery Store (128 px, 280 images, best of three rates each, one seed) reach 50.7 % for 47.9 %.
ACTIVATED = ("resnet", "wrn")
MOST_HEADS = 64  # each is a layer for every class; the paper has 4
OVERLAP = "overlap"  # what forward returns besides the outputs in training: a scalar


class AttendRectify(FineGrained):
    """A backbone whose stages each predict from where they look, and a gate that weighs these predictions with the network's own.

    gates = tanh(BN(W . GAP of the last map)), normalised over the modules and the network head; log p = sum of gate . log softmax(logits).
    log p is not renormalised, so its exponentials need not sum to 1 (`finedge.runtime.classifier.probabilities` renormalises).

    The paper also stops early, after a module that is sure. One fixed graph gains nothing from that, and the gates need the last map; the
    local outputs are there for it: build the graph up to a stage, and fit the threshold after INT8.

    Args:
        backbone: any; the modules sit behind its last stages.
        num_classes: number of labels.
        dropout: before the network head's linear layer, 0..1.
        head_init: of the network head; see `HEAD_INITS`.
        modules: N, how many of the last stages have one.
        heads: K, masks a module.
        kernel_size: of the modules' convolutions; 3 is the paper's, 1 a variant with a ninth of their weights.
        gate: how the gates are normalised: `softmax`, or `sigmoid` divided by its sum.
        regulariser: weight of the overlap of a module's masks in the loss; 0.001 in the paper, 0 for CIFAR-100.
    """

    about = About(
        paper="Attend and Rectify, Rodriguez et al., ECCV 2018, arXiv 1807.07320, and TMM 2019, arXiv 1907.13075",
        certain="modules, gates, likelihood, regulariser; behind BatchNorm and ReLU of each group of a WRN (from the authors' code)",
        reconstructed="the placement on other backbones: behind the last three stages, the rule of the WRN, with BatchNorm and ReLU of their own where "
        "stages do not end in a ReLU; four heads there, as for CIFAR. The network "
        "head's dropout and initial values are those of all models here. Pooling before the class convolution is the same function. "
        "kernel_size 1 is not in the paper. Early exit is not built: neither its rule nor its threshold could be found",
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dropout: float = 0.5,
        head_init: str = "kaiming",
        modules: int = 3,
        heads: int = 4,
        kernel_size: int = 3,
        gate: Gate = "softmax",
        regulariser: float = 0.001,
    ) -> None:
        super().__init__(
            backbone,
            dropout=dropout,
            head_init=head_init,
            modules=modules,
            heads=heads,
            kernel_size=kernel_size,
            gate=gate,
            regulariser=regulariser,
        )
        _check(modules, len(backbone.stages), heads=heads, kernel_size=kernel_size, gate=gate)
        self.gate, self.regulariser = gate, regulariser
        self.places = backbone.stages[-modules:]
        self.before = nn.ModuleList(_activation(backbone, place) for place in self.places)
        self.attention = nn.ModuleList(
            AttentionPooling(
                backbone.channels(place), num_classes, heads=heads, kernel_size=kernel_size
            )
            for place in self.places
        )
        self.classifier = LinearHead(
            backbone.feature_channels, num_classes, dropout=dropout, head_init=head_init
        )
        self.output_gate = _output_gate(backbone.feature_channels, modules + 1)
        self.outputs = (
            Output("log_prob", "log_prob", "main"),
            *(Output(f"local_{i}", "logits", "local") for i in range(modules)),
        )
        masks = [f"attention.{i}.masks" for i in range(modules)]
        self.taps = (
            *(f"backbone.{block}" for block in dict.fromkeys((*self.places, backbone.chain[-1]))),
            *masks,
        )
        self.views = tuple(
            View(f"looks at {place}", "mask", tap)
            for place, tap in zip(self.places, masks, strict=True)
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"log_prob": [B, num_classes], "local_0": [B, num_classes], ...}, local outputs shallow to deep; in training also "overlap"."""
        last, maps = self.backbone.run(images, taps=self.places)
        logits, masks = zip(
            *(
                module(before(maps[place]))
                for module, before, place in zip(
                    self.attention, self.before, self.places, strict=True
                )
            ),
            strict=True,
        )
        features = pooled(last)
        gates = normalised(self.output_gate(features), self.gate)
        outputs = {
            "log_prob": rectified([*logits, self.classifier(features)], gates),
            **{f"local_{i}": x for i, x in enumerate(logits)},
        }
        if self.training and self.regulariser:
            outputs[OVERLAP] = torch.stack([overlap(x) for x in masks]).mean()
        return outputs

    def loss(
        self, outputs: Mapping[str, Tensor], target: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Return the mean negative log-likelihood of the rectified prediction, and in training the weighted overlap: a float32 scalar.

        Target: int64 [B], or float [B, num_classes] shares. Not the cross-entropy of log p, which would renormalise it.
        """
        log_p = outputs["log_prob"].float()
        shares = target if target.is_floating_point() else F.one_hot(target, log_p.shape[1])
        smoothed = (1 - label_smoothing) * shares + label_smoothing / log_p.shape[1]
        likelihood = -(smoothed * log_p).sum(dim=1).mean()
        return (
            likelihood + self.regulariser * outputs[OVERLAP].float()
            if OVERLAP in outputs
            else likelihood
        )


def normalised(gates: Tensor, how: Gate) -> Tensor:
    """Return gates [B, n] that are positive and sum to 1 (a millionth less with `sigmoid`, whose published sum has 1e-6 added)."""
    if how == "softmax":
        return torch.softmax(gates, dim=1)
    positive = torch.sigmoid(gates)
    return positive / (positive.sum(dim=1, keepdim=True) + 1e-6)


def rectified(logits: Sequence[Tensor], gates: Tensor) -> Tensor:
    """Return the log-probabilities [B, L] of n predictions [B, L], weighted by gates [B, n]."""
    return (gates[:, :, None] * torch.log_softmax(torch.stack(list(logits), dim=1), dim=2)).sum(
        dim=1
    )


def _activation(backbone: Backbone, place: str) -> nn.Module:
    return (
        nn.Identity()
        if backbone.name.startswith(ACTIVATED)
        else nn.Sequential(nn.BatchNorm2d(backbone.channels(place)), nn.ReLU(inplace=True))
    )


def _output_gate(features: int, outputs: int) -> nn.Sequential:
    linear = nn.Linear(features, outputs, bias=False)
    nn.init.kaiming_normal_(linear.weight)
    return nn.Sequential(linear, nn.BatchNorm1d(outputs), nn.Tanh())


def _check(modules: int, stages: int, *, heads: int, kernel_size: int, gate: str) -> None:
    if not 1 <= modules <= stages:
        raise UsageError(
            f"{modules} modules", expected=f"1 to {stages}, the stages of this backbone"
        )
    if not 1 <= heads <= MOST_HEADS:
        raise UsageError(f"{heads} heads", expected=f"1 to {MOST_HEADS}")
    if kernel_size not in (1, 3):
        raise UsageError(f"kernel_size {kernel_size}", expected="3 (the paper's) or 1")
    if gate not in get_args(Gate):
        raise UsageError(f"unknown gate '{gate}'", expected=f"one of {', '.join(get_args(Gate))}")
