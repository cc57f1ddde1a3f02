"""One step of the optimizer: forward and backward over one batch or several, then the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from finedge.spec import Spec
from finedge.train.distill import Teacher, distilled
from finedge.train.distributed import World
from finedge.train.ema import MovingAverage
from finedge.train.loader import Batch, normalise
from finedge.train.models import FineGrained
from finedge.train.optimizer import set_lr
from finedge.train.profile import StepClock
from finedge.train.recipe import Recipe
from finedge.train.targets import Targets


class TrainingStep:
    """Changes the weights of `model` in place.

    It holds the optimizer and the moving average, and wraps the model in DDP and the compiler.

    Args:
        model: on its device; the wrapping leaves its own `state_dict` unchanged.
        recipe: loss, precision and compiler.
        spec: preprocessing and main output of the model.
        optimizer: over the model's parameters.
        targets: mixes images, and makes the targets of the loss.
        ema: moving average that follows the model, or None.
        teacher: adds its term to the loss, or None.
        world: the processes that share each batch.
        clock: counts the time of each phase of the step.
    """

    def __init__(
        self,
        model: FineGrained,
        recipe: Recipe,
        *,
        spec: Spec,
        optimizer: torch.optim.Optimizer,
        targets: Targets,
        ema: MovingAverage[FineGrained] | None,
        teacher: Teacher | None,
        world: World,
        clock: StepClock,
    ) -> None:
        self.model, self.recipe, self.spec = model, recipe, spec
        self.optimizer, self.ema, self.teacher = optimizer, ema, teacher
        self.targets = targets
        self.device, self.clock = world.device, clock
        self.world = world
        self._wrap()
        self.inputs: Callable[[torch.Tensor], torch.Tensor] = partial(
            normalise, preprocessing=spec.preprocess
        )
        self.bf16 = recipe.bf16 == "on" or (recipe.bf16 == "auto" and world.device.type == "cuda")

    def train_part(self, *, new_only: bool) -> None:
        """Train the model's new layers only, or all that the optimizer has.

        Parameters without a gradient are left alone by the optimizer, weight decay included.
        """
        new = {id(parameter) for parameter in self.model.new_parameters()}
        changed = False
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                trains = not new_only or id(parameter) in new
                changed |= parameter.requires_grad != trains
                parameter.requires_grad_(trains)
        if changed:  # DDP waits for the gradients that it knows of since its start
            self._wrap()

    def _wrap(self) -> None:
        self.parallel = self.world.wrap(self.model)
        self.forward = torch.compile(self.parallel) if self.recipe.compile else self.parallel

    def __call__(self, batches: Iterator[Batch], *, images: int, lr: float) -> torch.Tensor:
        """Take batches until `images` images are seen, and update once.

        The gradient is that of their mean loss.

        Returns:
            The mean loss over the images of this process, a float32 scalar on the device.

        Raises:
            StopIteration: fewer images came.
        """
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        total, seen = torch.zeros((), device=self.device), 0
        while seen < images:
            batch = next(batches)
            self.clock.lap("data")
            seen += len(batch.targets)
            with self._averaging(now=seen >= images):
                loss = self._loss(batch) * (len(batch.targets) / images)
                self.clock.lap("forward")
                torch.autograd.backward(loss)
            total += loss.detach()
            self.clock.lap("backward")
        self._update()
        self.clock.lap("optimizer")
        return total

    def _update(self) -> None:
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model)

    def _loss(self, batch: Batch) -> torch.Tensor:
        frames, targets = (
            t.to(self.device, non_blocking=True) for t in (batch.frames, batch.targets)
        )
        frames, targets, smoothing = self.targets(frames, targets)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            outputs = self.forward(self.inputs(frames))
            loss: torch.Tensor = self.model.loss(outputs, targets, label_smoothing=smoothing)
            if self.teacher is not None:
                weight, temperature = self.recipe.distill_weight, self.recipe.distill_temperature
                loss = distilled(
                    loss,
                    outputs[self.spec.main.name],
                    self.teacher(frames),
                    weight=weight,
                    temperature=temperature,
                )
        return loss

    def _averaging(self, *, now: bool) -> AbstractContextManager[None]:
        # Gradients are exchanged between processes once a step, with the last of its batches.
        if now or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()


def to_training_mode(model: nn.Module, *, freeze_norm: bool) -> None:
    """Set `model` to training mode.

    A BatchNorm whose weights are not trained uses its stored statistics and does not update them.
    With `freeze_norm` every one does so.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and (freeze_norm or _is_frozen(module)):
            module.eval()


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters(recurse=False))
    return bool(parameters) and not any(p.requires_grad for p in parameters)
