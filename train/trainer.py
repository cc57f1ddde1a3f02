"""The training loop: one recipe, one model, a checkpoint after every epoch."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from finedge.data import DataSet
from finedge.errors import FinedgeError
from finedge.files import write_text
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import load_checkpoint, save_checkpoint
from finedge.train.ema import MovingAverage
from finedge.train.evaluate import accuracy, target_ranks
from finedge.train.loader import Batch, TrainingImages, batches, normalise, scaled
from finedge.train.models import FineGrained
from finedge.train.optimizer import lr_at, set_lr, sgd
from finedge.train.recipe import Recipe
from finedge.train.run import METRICS

log = logging.getLogger(__name__)

CHECK_EVERY = 20  # steps between looks at the loss: each look makes a GPU wait


@dataclass(frozen=True)
class Job:
    """What one training is made of; the model carries its initial weights and lies on the CPU."""

    path: Path
    model: FineGrained
    spec: Spec
    recipe: Recipe
    data: DataSet
    pretrained: bool
    device: torch.device
    workers: int


class Trainer:
    """Trains a job's model in place, epoch by epoch; `epoch` counts the finished ones."""

    def __init__(self, job: Job) -> None:
        self.job, self.recipe = job, job.recipe
        layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
        self.model: FineGrained = job.model.to(job.device, memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = sgd(self.model, job.recipe, backbone_lr=job.recipe.backbone_lr if job.pretrained else 1.0)
        self.ema = MovingAverage(self.model, decay=job.recipe.ema) if job.recipe.ema else None
        self.bf16 = job.recipe.bf16 == "on" or (job.recipe.bf16 == "auto" and job.device.type == "cuda")
        self.images = job.data.split("train")
        self.steps = max(1, len(self.images) // job.recipe.batch_size)
        self.epoch = 0
        self.rows: list[dict[str, Any]] = []

    def save(self) -> None:
        """Write metrics and checkpoint; the checkpoint comes last, so that metrics never lack an epoch it has."""
        write_text(self.job.path / METRICS, "".join(json.dumps(row) + "\n" for row in self.rows))
        save_checkpoint(self.job.path / CHECKPOINT, self.model, optimizer=self.optimizer, ema=self.ema, epoch=self.epoch)

    def load(self) -> None:
        """Go back to the run's checkpoint."""
        self.epoch = load_checkpoint(self.job.path / CHECKPOINT, self.model, optimizer=self.optimizer, ema=self.ema)
        lines = (self.job.path / METRICS).read_text().splitlines()
        self.rows = [row for row in map(json.loads, lines) if row["epoch"] <= self.epoch]

    def run(self) -> None:
        """Train the epochs that are left.

        Raises:
            FinedgeError: the loss or a weight is no longer a finite number; the last checkpoint is kept.
        """
        while self.epoch < self.recipe.epochs:
            row = self._train_epoch(self.epoch)
            row |= self._validate()
            self.epoch += 1
            self.rows.append({"epoch": self.epoch, **row})
            self.save()
            log.info("%s", _line(self.rows[-1], self.recipe.epochs))

    def result(self) -> dict[str, Any]:
        """Return what `finedge train` prints: the accuracy after the last epoch on the val split."""
        last = self.rows[-1]
        return {
            "run": str(self.job.path),
            "model": self.job.spec.model,
            "backbone": self.job.spec.backbone,
            "epochs": self.epoch,
            "split": "val",
            **last["val"],
            "loss": last["loss"],
            "images_per_s": last["images_per_s"],
            "seconds": round(sum(row["seconds"] + row["val_seconds"] for row in self.rows), 2),
        }

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        # All that is random hangs on (seed, epoch), so that a resumed run draws what an uninterrupted one draws.
        torch.manual_seed(self.recipe.seed * 1_000_003 + epoch)
        images = TrainingImages(self.images, scaled(self.job.spec.preprocess, self.recipe.side(epoch)), self.recipe, epoch)
        order = images.order()[: self.steps * self.recipe.batch_size]
        self.model.train()
        total, start = torch.zeros((), device=self.job.device), time.perf_counter()
        with _progress(f"epoch {epoch + 1}/{self.recipe.epochs}", self.steps) as advance:
            for step, batch in enumerate(batches(images, order, batch_size=self.recipe.batch_size, workers=self.job.workers)):
                set_lr(self.optimizer, lr_at(epoch * self.steps + step, self.recipe, steps_per_epoch=self.steps))
                total += self._step(batch)
                if (step + 1) % CHECK_EVERY == 0:
                    self._require_finite(total, epoch)
                advance()
        self._require_finite(total, epoch)
        seconds = time.perf_counter() - start
        lr = lr_at(epoch * self.steps, self.recipe, steps_per_epoch=self.steps)
        return {"loss": total.item() / self.steps, "lr": lr, "images_per_s": round(len(order) / seconds, 2), "seconds": round(seconds, 2)}

    def _step(self, batch: Batch) -> torch.Tensor:
        frames, targets = (t.to(self.job.device, non_blocking=True) for t in (batch.frames, batch.targets))
        with torch.autocast(self.job.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            outputs = self.model(normalise(frames, self.job.spec.preprocess))
            loss: torch.Tensor = self.model.loss(outputs, targets, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model)
        return loss.detach()

    def _validate(self) -> dict[str, Any]:
        self._require_finite(torch.stack([p.detach().sum() for p in self.model.parameters()]).sum(), self.epoch)
        result = self.model if self.ema is None else self.ema.model
        start = time.perf_counter()
        ranks = target_ranks(result, self.job.data.splits.get("val", ()), self.job.spec, device=self.job.device, workers=self.job.workers)
        return {"val": accuracy(ranks), "val_seconds": round(time.perf_counter() - start, 2)}

    def _require_finite(self, value: torch.Tensor, epoch: int) -> None:
        if not math.isfinite(value.item()):
            raise FinedgeError(
                f"training diverged in epoch {epoch + 1}: loss or weights are no longer finite (lr {self.recipe.lr})",
                expected="a finite loss",
                fix=f"finedge train --out {self.job.path} --resume --lr {self.recipe.lr / 10:g} goes on from the checkpoint of epoch {self.epoch}",
            )


@contextmanager
def _progress(text: str, total: int) -> Iterator[Any]:
    """Yield a function that advances a bar on stderr by one; nothing is drawn where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(text, total=total)
        yield lambda: progress.advance(task)


def _line(row: dict[str, Any], epochs: int) -> str:
    top1 = row["val"]["top1"]
    val = "n/a" if top1 is None else f"{100 * top1:.1f} %"
    return f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, val top-1 {val}, {row['images_per_s']} images/s, lr {row['lr']:.4g}"
