"""Attend and Rectify (Rodriguez et al., ECCV 2018, arXiv 1807.07320; TMM 2019, arXiv 1907.13075).

Details are from the authors' published code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finedge.bundle import View
from finedge.errors import UsageError
from finedge.spec import Output
from finedge.train.backbones import Backbone
from finedge.train.layers.attention_pooling import AttentionPooling, overlap
from finedge.train.layers.head import LinearHead, pooled
from finedge.train.layers.uniform import Attention
from finedge.train.models.base import ACTIVATED, About, FineGrained

Gate = Literal["softmax", "sigmoid"]
Head = Literal["gated", "half"]
FEW_STAGES = 3  # of CIFAR's WRN, where every stage has a module
MAX_HEADS = 64  # each is a layer for every class; the paper has 4
OVERLAP = "overlap"  # a scalar that forward also returns in training


class AttendRectify(FineGrained):
    """A backbone with attention modules after its last stages, each of which predicts the class.

    A gate weighs the predictions of the modules and of the network head:
    gates = tanh(BN(W . GAP of the last map)), normalised over the modules and the network head;
    log p = sum of gate . log softmax(logits).
    log p is not renormalised, so its exponentials need not sum to 1
    (`finedge.runtime.classifier.probabilities` renormalises).

    With head "half" the network head is not gated: it has half of the weight, and the gates of the
    modules share the other half.

    The paper also stops early, after a module that is certain. The gates need the last map, so the
    exit's answer is the local output alone: `finedge export --segments`, and a threshold that
    `finedge calibrate` fits after INT8.

    In the paper a module learns through its gate alone, so one that the gates do not trust is no
    classifier (3.9 and 11.8 % top-1 on Grocery Store for the two shallow ones of EfficientNet-
    Lite0). `local_loss` gives each module a cross-entropy of its own, as the exits of BranchyNet
    (Teerapittayanon et al., ICPR 2016, arXiv 1709.01686) and MSDNet (Huang et al., ICLR 2018, arXiv
    1703.09844) have. Theirs are summed with a weight each; here all have the same.

    Shapes: images float [B, 3, H, W] -> "log_prob" and "local_I" [B, num_classes].

    Args:
        backbone: any; the modules sit after its last stages but the last one (see `last`).
        num_classes: number of labels.
        dropout: before the network head's linear layer, 0..1.
        head_init: of the network head; see `HEAD_INITS`.
        modules: N, how many stages have one, counted from the deepest.
        heads: K, the masks of a module.
        kernel_size: of the modules' convolutions; 3 is the paper's, 1 is a variant with a ninth of
            their weights.
        gate: how the gates are normalised: `softmax`, or `sigmoid` divided by its sum.
        regulariser: weight of the overlap of a module's masks in the loss; 0.001 in the paper, 0
            for CIFAR-100.
        last: whether the last stage of a backbone with four stages or more has a module, as in
            versions before this option. In the authors' code it has none: on ResNets the modules
            sit after C2, C3 and C4. Backbones with three stages always have one there.
        head: `gated` weighs the network head by its gate. `half` gives it half of the weight, as
            the authors did on CUB (their `attention_output` "50").
        attention: with `uniform` all masks are flat: the control without attention.
        local_loss: weight of each module's own cross-entropy in the loss; 0 is the paper.
    """

    about = About(
        paper="Attend and Rectify, Rodriguez et al., ECCV 2018, arXiv 1807.07320, and TMM 2019, "
        "arXiv 1907.13075",
        certain="modules, gates, likelihood, regulariser; placed after BatchNorm and ReLU of each "
        "group of CIFAR's WRN, and after the groups before the last of a network with four (from "
        "the authors' code)",
        reconstructed="on backbones whose stages do not end in a ReLU a BatchNorm and a ReLU "
        "before each module. The network head's dropout and initial values are those of all "
        "models here. Pooling before the class convolution is the same function. kernel_size 1 is "
        "not in the paper, and local_loss is not. The rule of the early exit and its threshold "
        "are ours: neither could be found",
    )

    former: ClassVar[Mapping[str, Any]] = {"last": True, "local_loss": 0.0}

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
        last: bool = False,
        head: Head = "gated",
        attention: Attention = "softmax",
        local_loss: float = 0.0,
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
            last=last,
            head=head,
            attention=attention,
            local_loss=local_loss,
        )
        stages = stages_with_modules(backbone, last=last)
        _check(modules, len(stages), heads=heads, kernel_size=kernel_size, gate=gate, head=head)
        if not (math.isfinite(local_loss) and local_loss >= 0):
            raise UsageError(f"local_loss {local_loss}", expected="a number >= 0; 0 is the paper")
        self.gate, self.regulariser, self.head = gate, regulariser, head
        self.local_loss = local_loss
        self.places = stages[-modules:]
        self.before = nn.ModuleList(_activation(backbone, place) for place in self.places)
        self.attention = nn.ModuleList(
            AttentionPooling(
                backbone.channels(place),
                num_classes,
                heads=heads,
                kernel_size=kernel_size,
                attention=attention,
            )
            for place in self.places
        )
        self.classifier = LinearHead(
            backbone.feature_channels, num_classes, dropout=dropout, head_init=head_init
        )
        gates = modules + (head == "gated")
        self.output_gate = _output_gate(backbone.feature_channels, gates)
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
        """Return {"log_prob": [B, num_classes], "local_0": [B, num_classes], ...}.

        The local outputs go from shallow to deep; in training there is also "overlap", a scalar.
        """
        last, maps = self.backbone.run(images, taps=self.places)
        modules = zip(self.attention, self.before, self.places, strict=True)
        predictions = [module(before(maps[place])) for module, before, place in modules]
        logits, masks = zip(*predictions, strict=True)
        features = pooled(last)
        gates = normalised(self.output_gate(features), self.gate)
        if self.head == "half":
            gates = torch.cat([gates / 2, torch.full_like(gates[:, :1], 0.5)], dim=1)
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
        """Return the mean negative log-likelihood of the rectified prediction: a float32 scalar.

        In training the weighted overlap is added, and with `local_loss` the cross-entropies of the
        modules. It is not the cross-entropy of log p, which would renormalise it. Target: int64
        [B], or probabilities float [B, num_classes].
        """
        log_p = outputs["log_prob"].float()
        one_hot = target if target.is_floating_point() else F.one_hot(target, log_p.shape[1])
        smoothed = (1 - label_smoothing) * one_hot + label_smoothing / log_p.shape[1]
        likelihood = -(smoothed * log_p).sum(dim=1).mean()
        loss = likelihood
        if OVERLAP in outputs:
            loss = loss + self.regulariser * outputs[OVERLAP].float()
        if self.training and self.local_loss:
            local = (outputs[output.name] for output in self.outputs if output.role == "local")
            own = [
                F.cross_entropy(x.float(), target, label_smoothing=label_smoothing) for x in local
            ]
            loss = loss + self.local_loss * torch.stack(own).sum()
        return loss


def normalised(gates: Tensor, gate: Gate) -> Tensor:
    """Return gates [B, n] that are positive and sum to 1.

    With `sigmoid` the sum is a millionth less: the published code adds 1e-6 to the divisor.
    """
    if gate == "softmax":
        return torch.softmax(gates, dim=1)
    positive = torch.sigmoid(gates)
    return positive / (positive.sum(dim=1, keepdim=True) + 1e-6)


def rectified(logits: Sequence[Tensor], gates: Tensor) -> Tensor:
    """Return the log-probabilities [B, L] of n predictions [B, L], weighted by gates [B, n]."""
    log_p = torch.log_softmax(torch.stack(list(logits), dim=1), dim=2)
    return (gates[:, :, None] * log_p).sum(dim=1)


def stages_with_modules(backbone: Backbone, *, last: bool) -> tuple[str, ...]:
    """Return the stages that may have a module, shallow to deep."""
    if last or len(backbone.stages) <= FEW_STAGES:
        return backbone.stages
    return backbone.stages[:-1]


def _activation(backbone: Backbone, place: str) -> nn.Module:
    """Return what comes before a module: a BatchNorm and a ReLU where the stage has none.

    Without them masks would start as single positions (mean peak 0.8 of 400 positions). With them
    modules reach 50.7 % and without them 47.9 %. Measured on frozen Lite0 features of Grocery Store
    (128 px, 280 images, best of three learning rates each, one seed).
    """
    if backbone.name.startswith(ACTIVATED):
        return nn.Identity()
    return nn.Sequential(nn.BatchNorm2d(backbone.channels(place)), nn.ReLU(inplace=True))


def _output_gate(features: int, outputs: int) -> nn.Sequential:
    linear = nn.Linear(features, outputs, bias=False)
    nn.init.kaiming_normal_(linear.weight)
    return nn.Sequential(linear, nn.BatchNorm1d(outputs), nn.Tanh())


def _check(
    modules: int, stages: int, *, heads: int, kernel_size: int, gate: str, head: str
) -> None:
    if not 1 <= modules <= stages:
        raise UsageError(
            f"{modules} modules",
            expected=f"1 to {stages}, the stages of this backbone that may have one",
        )
    if not 1 <= heads <= MAX_HEADS:
        raise UsageError(f"{heads} heads", expected=f"1 to {MAX_HEADS}")
    if kernel_size not in (1, 3):
        raise UsageError(f"kernel_size {kernel_size}", expected="3 (the paper's) or 1")
    if gate not in get_args(Gate):
        raise UsageError(f"unknown gate '{gate}'", expected=f"one of {', '.join(get_args(Gate))}")
    if head not in get_args(Head):
        raise UsageError(f"unknown head '{head}'", expected=f"one of {', '.join(get_args(Head))}")
