"""The exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class MovingAverage(Generic[Model]):
    """A copy of `model` whose floating-point state follows it.

    average = d * average + (1 - d) * weight. After n updates d = (1 + n) / (10 + n), and `decay` at
    most, so that the first steps are forgotten. Batch statistics are averaged
    too; integer buffers are copied.
    """

    def __init__(self, model: Model, *, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Move the average towards the weights of `model`."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        current = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])
