"""The training loop: one recipe, one model, a checkpoint after every epoch."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from finedge.data import DataSet
from finedge.errors import FinedgeError, UsageError
from finedge.files import write_text
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import load_checkpoint, save_checkpoint
from finedge.train.distill import Teacher
from finedge.train.distributed import World
from finedge.train.ema import MovingAverage
from finedge.train.evaluate import accuracy, target_ranks
from finedge.train.loader import Batch, TrainingImages, batches, scaled
from finedge.train.models import FineGrained
from finedge.train.optimizer import lr_at, sgd
from finedge.train.profile import StepClock
from finedge.train.recipe import Recipe
from finedge.train.record import read_metrics
from finedge.train.run import METRICS
from finedge.train.step import Step, to_training_mode

log = logging.getLogger(__name__)

CHECK_EVERY = 20  # steps between looks at the loss: each look makes a GPU wait


@dataclass(frozen=True)
class Machine:
    """Where training runs: the processes, the threads of each that prepare images, and whether steps are timed. No result hangs on it."""

    world: World
    workers: int
    profile: bool = False


@dataclass(frozen=True)
class Job:
    """What one training is made of; the model carries its initial weights and lies on the CPU."""

    path: Path
    model: FineGrained
    spec: Spec
    recipe: Recipe
    data: DataSet
    pretrained: bool
    machine: Machine
    teacher: Teacher | None = None


class Trainer:
    """Trains a job's model in place, epoch by epoch; `epoch` counts the finished ones."""

    def __init__(self, job: Job) -> None:
        self.job, self.recipe = job, job.recipe
        self.world = world = job.machine.world
        self.steps, self.images_per_step = _steps(len(job.data.split("train")), job.recipe, world)
        layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
        self.model: FineGrained = job.model.to(world.device, memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = sgd(
            self.model, job.recipe, backbone_lr=job.recipe.backbone_lr if job.pretrained else 1.0
        )
        self.ema = MovingAverage(self.model, decay=job.recipe.ema) if job.recipe.ema else None
        self.clock = StepClock(world.device, on=job.machine.profile)
        self.step = Step(
            self.model,
            job.recipe,
            spec=job.spec,
            optimizer=self.optimizer,
            ema=self.ema,
            teacher=job.teacher,
            world=world,
            clock=self.clock,
        )
        self.epoch = 0
        self.rows: list[dict[str, Any]] = []

    def save(self) -> None:
        """Write metrics and checkpoint (one process does); the checkpoint comes last, so that metrics never lack an epoch it has."""
        if not self.world.writer:
            return
        write_text(self.job.path / METRICS, "".join(json.dumps(row) + "\n" for row in self.rows))
        save_checkpoint(
            self.job.path / CHECKPOINT,
            self.model,
            optimizer=self.optimizer,
            ema=self.ema,
            epoch=self.epoch,
        )

    def load(self) -> None:
        """Go back to the run's checkpoint."""
        self.epoch = load_checkpoint(
            self.job.path / CHECKPOINT, self.model, optimizer=self.optimizer, ema=self.ema
        )
        self.rows = read_metrics(self.job.path / METRICS, epochs=self.epoch)

    def run(self) -> None:
        """Train the epochs that are left.

        Raises:
            FinedgeError: the loss or a weight is no longer a finite number; the last checkpoint is kept.
        """
        try:
            while self.epoch < self.recipe.epochs:
                row = self.train_epoch(self.epoch)
                row |= self._validate()
                self.epoch += 1
                self.rows.append({"epoch": self.epoch, **row})
                self.save()
                log.info("%s", _line(self.rows[-1], self.recipe.epochs))
        except KeyboardInterrupt:
            path = self.job.path
            log.warning(
                "interrupted; %s holds the checkpoint of epoch %d. To go on: finedge train --out %s --resume",
                path,
                self.epoch,
                path,
            )
            raise

    def result(self) -> dict[str, Any]:
        """Return what `finedge train` prints."""
        return summary(self.job.path, self.job.spec, self.rows)

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch (0-based) and return its row of the metrics, without validation."""
        start = time.perf_counter()
        loss = self._train_steps(epoch)
        seconds = time.perf_counter() - start
        row = {
            "loss": loss,
            "lr": lr_at(epoch * self.steps, self.recipe, steps_per_epoch=self.steps),
            "images_per_s": round(self.steps * self.images_per_step / seconds, 2),
            "seconds": round(seconds, 2),
        }
        return row | self.clock.report(self.steps)

    def _train_steps(self, epoch: int) -> float:
        """Train one epoch and return the mean loss of its images."""
        stream = self._stream(epoch)
        to_training_mode(self.model, freeze_norm=self.recipe.freeze_norm)
        total = torch.zeros((), device=self.world.device)
        with _progress(
            f"epoch {epoch + 1}/{self.recipe.epochs}", self.steps, shown=self.world.writer
        ) as advance:
            self.clock.start()
            for step in range(self.steps):
                lr = lr_at(epoch * self.steps + step, self.recipe, steps_per_epoch=self.steps)
                total += self.step(stream, images=self.images_per_step // self.world.size, lr=lr)
                if (step + 1) % CHECK_EVERY == 0:
                    self._require_finite(total, epoch)
                advance()
                self.clock.lap("rest")
        self._require_finite(total, epoch)
        return self.world.mean(total).item() / self.steps

    def _stream(self, epoch: int) -> Iterator[Batch]:
        """Yield this process's share of the epoch's batches."""
        recipe, world = self.recipe, self.world
        # All that is random hangs on (seed, epoch), so that a resumed run draws what an uninterrupted one draws.
        torch.manual_seed(recipe.seed * 1_000_003 + epoch + world.rank * 1_000_000_007)
        images = TrainingImages(
            self.job.data.split("train"),
            scaled(self.job.spec.preprocess, recipe.side(epoch)),
            recipe,
            epoch,
        )
        share = world.share(images.order()[: self.steps * self.images_per_step])
        return batches(
            images,
            share,
            batch_size=recipe.batch_size // world.size,
            workers=self.job.machine.workers,
        )

    def _validate(self) -> dict[str, Any]:
        self._require_finite(
            torch.stack([p.detach().sum() for p in self.model.parameters()]).sum(), self.epoch
        )
        start = time.perf_counter()
        result = self.model if self.ema is None else self.ema.model
        self.world.share_buffers(result)
        items = self.world.share(self.job.data.splits.get("val", ()))
        ranks = target_ranks(
            result, items, self.job.spec, device=self.world.device, workers=self.job.machine.workers
        )
        return {
            "val": accuracy(self.world.gathered(ranks)),
            "val_seconds": round(time.perf_counter() - start, 2),
        }

    def _require_finite(self, value: torch.Tensor, epoch: int) -> None:
        if not math.isfinite(value.item()):
            raise FinedgeError(
                f"training diverged in epoch {epoch + 1}: loss or weights are no longer finite (lr {self.recipe.lr})",
                expected="a finite loss",
                fix=f"finedge train --out {self.job.path} --resume --lr {self.recipe.lr / 10:g} goes on from the checkpoint of epoch {self.epoch}",
            )


def summary(path: Path, spec: Spec, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what `finedge train` prints of a run with the metrics `rows`: the accuracy after the last epoch on the val split."""
    last = rows[-1]
    return {
        "run": str(path),
        "model": spec.model,
        "backbone": spec.backbone,
        "epochs": last["epoch"],
        "split": "val",
        **last["val"],
        "loss": last["loss"],
        "images_per_s": last["images_per_s"],
        "seconds": round(sum(row["seconds"] + row["val_seconds"] for row in rows), 2),
        **({"profile": last["profile"]} if "profile" in last else {}),
    }


def _steps(images: int, recipe: Recipe, world: World) -> tuple[int, int]:
    """Return the steps of an epoch, and the images of a step over all processes."""
    step = recipe.batch_size * recipe.accumulate
    if recipe.batch_size % world.size:
        raise UsageError(
            f"batch_size {recipe.batch_size} for {world.size} processes",
            expected=f"a multiple of {world.size}",
            fix="--batch-size N",
        )
    if world.size > 1 and images < step:
        raise UsageError(
            f"{images} training images for steps of {step} in {world.size} processes",
            expected=f"at least {step}",
            fix="--batch-size N",
        )
    return max(1, images // step), min(images, step)


@contextmanager
def _progress(text: str, total: int, *, shown: bool) -> Iterator[Any]:
    """Yield a function that advances a bar on stderr by one; nothing is drawn where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not (shown and console.is_terminal)
    ) as progress:
        task = progress.add_task(text, total=total)
        yield lambda: progress.advance(task)


def _line(row: dict[str, Any], epochs: int) -> str:
    top1 = row["val"]["top1"]
    val = "n/a" if top1 is None else f"{100 * top1:.1f} %"
    return f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, val top-1 {val}, {row['images_per_s']} images/s, lr {row['lr']:.4g}"
