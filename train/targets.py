"""The targets of the loss: mixed images have mixed targets, and rare classes may count more.

torchvision mixes (transforms v2). Its random numbers come from torch's generator, which the trainer
seeds for every epoch and process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from finedge.train.recipe import Recipe


class Targets:
    """Mixes a batch, and makes its targets.

    A loss is linear in its target probabilities. A target times w is thus a loss times w, whether
    the model has one cross-entropy, a sum of them, or a likelihood that is not normalised.

    Args:
        recipe: mixup, cutmix, mix_share, class_weights and label_smoothing.
        labels: class indices of all training images, for the weights.
        classes: number of classes.
    """

    def __init__(self, recipe: Recipe, *, labels: Sequence[int], classes: int) -> None:
        self.share, self.smoothing = recipe.mix_share, recipe.label_smoothing
        self.classes = classes
        self.mixers: list[v2.MixUp | v2.CutMix] = []
        if recipe.mixup:
            self.mixers.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
        if recipe.cutmix:
            self.mixers.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
        weighted = recipe.class_weights == "balanced"
        self.weights = balanced_weights(labels, classes=classes) if weighted else None

    def __call__(
        self, frames: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Return the images, the targets, and the label smoothing that the loss has to apply.

        Args:
            frames: uint8 [B, H, W, 3]. Mixed ones are float32 of the same shape and range.
            labels: int64 [B]. They stay as they are where nothing changes them; else the targets
                are float32 [B, classes].
        """
        targets = labels
        if self.mixers and float(torch.rand(())) < self.share:
            choice = int(torch.randint(len(self.mixers), ()))
            images, targets = self.mixers[choice](frames.permute(0, 3, 1, 2).float(), labels)
            frames = images.permute(0, 2, 3, 1)
        if self.weights is None:
            return frames, targets, self.smoothing
        soft = targets if targets.is_floating_point() else F.one_hot(targets, self.classes).float()
        weights = (soft * self.weights.to(soft.device)).sum(dim=1, keepdim=True)
        # Smoothed here: the loss would add the share of the other classes without the weight.
        smoothed = (1 - self.smoothing) * soft + self.smoothing / self.classes
        return frames, weights * smoothed, 0.0


def balanced_weights(labels: Sequence[int], *, classes: int) -> torch.Tensor:
    """Return a weight for each class, float32 [classes].

    It is n / (classes * images of the class), so that its mean over the n images is 1.
    """
    counts = Counter(labels)
    weights = [len(labels) / (classes * max(1, counts[label])) for label in range(classes)]
    return torch.tensor(weights)
