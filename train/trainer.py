"""The training loop: one recipe, one model, a checkpoint after every epoch."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finedge.confusion.counts import Confusion
from finedge.data import DataSet
from finedge.errors import FinedgeError, UsageError
from finedge.files import write_text
from finedge.image import read_image
from finedge.progress import progress_bar
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import best_weights, load_checkpoint, save_checkpoint
from finedge.train.decoded import decoded_images
from finedge.train.distill import Teacher
from finedge.train.distributed import World
from finedge.train.ema import MovingAverage
from finedge.train.evaluate.accuracy import Predictions, accuracy, predictions
from finedge.train.loader import Batch, Read, TrainingImages, batches, default_workers, scaled
from finedge.train.models import FineGrained
from finedge.train.optimizer import build_optimizer, lr_at
from finedge.train.profile import StepClock
from finedge.train.recipe import Keep, Recipe
from finedge.train.record import read_metrics
from finedge.train.request import THIS_MACHINE, MachineOptions
from finedge.train.run import METRICS
from finedge.train.step import TrainingStep, to_training_mode
from finedge.train.stopping import best_epoch, is_out_of_patience
from finedge.train.targets import Targets
from finedge.train.writers import WRITERS

log = logging.getLogger(__name__)

CHECK_EVERY = 20  # steps between two reads of the loss: each read makes a GPU wait


@dataclass(frozen=True)
class Job:
    """All that one training needs; the model has its initial weights and is on the CPU."""

    path: Path
    model: FineGrained
    spec: Spec
    recipe: Recipe
    data: DataSet
    pretrained: bool
    world: World
    machine: MachineOptions = THIS_MACHINE
    teacher: Teacher | None = None


class Trainer:
    """Trains a job's model in place, epoch by epoch; `epoch` counts the finished ones.

    `val` has the answers to the val split after the last epoch that this trainer trained.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.recipe = job, job.recipe
        self.world = world = job.world
        self.workers = job.machine.workers or default_workers(processes=world.local_size)
        self.steps, self.images_per_step = _steps(len(job.data.split("train")), job.recipe, world)
        layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
        model = job.model.to(world.device, memory_format=layout)  # type: ignore[call-overload]
        self.model: FineGrained = model
        backbone_lr = job.recipe.backbone_lr if job.pretrained else 1.0
        self.optimizer = build_optimizer(self.model, job.recipe, backbone_lr=backbone_lr)
        self.ema = MovingAverage(self.model, decay=job.recipe.ema) if job.recipe.ema else None
        self.clock = StepClock(world.device, on=job.machine.profile)
        self.step = TrainingStep(
            self.model,
            job.recipe,
            spec=job.spec,
            optimizer=self.optimizer,
            targets=_targets(job),
            ema=self.ema,
            teacher=job.teacher,
            world=world,
            clock=self.clock,
        )
        self.read = _reader(job)
        self.epoch = 0
        self.rows: list[dict[str, Any]] = []
        self.val: Confusion | None = None
        self.best: dict[str, torch.Tensor] = {}  # the state dict of the best epoch, if it is kept

    def save(self) -> None:
        """Write metrics and checkpoint, in one process.

        The checkpoint comes last, so that the metrics never lack an epoch that it has.
        """
        if not self.world.writer:
            return
        write_text(self.job.path / METRICS, "".join(json.dumps(row) + "\n" for row in self.rows))
        save_checkpoint(
            self.job.path / CHECKPOINT,
            self.model,
            optimizer=self.optimizer,
            ema=self.ema,
            epoch=self.epoch,
            best=self.best,
        )

    def load(self) -> None:
        """Go back to the run's checkpoint."""
        self.epoch = load_checkpoint(
            self.job.path / CHECKPOINT, self.model, optimizer=self.optimizer, ema=self.ema
        )
        self.rows = read_metrics(self.job.path / METRICS, epochs=self.epoch)
        self.best = best_weights(self.job.path / CHECKPOINT)

    def run(self) -> None:
        """Train the epochs that are left.

        Raises:
            FinedgeError: the loss or a weight is no longer a finite number; the last checkpoint is
                kept.
        """
        try:
            with self._writer() as write:
                while self.epoch < self.recipe.epochs and not self._is_out_of_patience():
                    row = self.train_epoch(self.epoch)
                    row |= self._validate()
                    self.epoch += 1
                    self.rows.append({"epoch": self.epoch, **row})
                    self._keep_best()
                    self.save()
                    write(self.rows[-1])
                    log.info("%s", _line(self.rows[-1], self.recipe.epochs))
        except KeyboardInterrupt:
            path = self.job.path
            log.warning("interrupted; %s holds the checkpoint of epoch %d", path, self.epoch)
            log.warning("to continue: finedge train --out %s --resume", path)
            raise

    def result(self) -> dict[str, Any]:
        """Return what `finedge train` prints."""
        return summary(self.job.path, self.job.spec, self.rows, keep=self.recipe.keep)

    @contextmanager
    def _writer(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Yield the function that takes each row of metrics, besides metrics.jsonl."""
        kind = self.job.machine.log_to
        if kind is None or not self.world.writer:
            yield lambda row: None
            return
        writer = WRITERS[kind](self.job.path, self.recipe, epoch=self.epoch)
        try:
            yield writer.write
        finally:
            writer.close()

    def _is_out_of_patience(self) -> bool:
        stops = is_out_of_patience(self.rows, patience=self.recipe.patience)
        if stops:
            patience, best = self.recipe.patience, best_epoch(self.rows)
            log.info("stopped: %d epochs were no better on val than epoch %d", patience, best)
        return stops

    def _keep_best(self) -> None:
        """Copy the weights of the last epoch if it is the best so far."""
        if self.recipe.keep == "best" and best_epoch(self.rows) == self.epoch:
            result = self.model if self.ema is None else self.ema.model
            self.best = {name: t.detach().cpu().clone() for name, t in result.state_dict().items()}

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch (0-based) and return its row of metrics, without validation."""
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
        self.step.train_part(new_only=epoch < self.recipe.head_epochs)
        to_training_mode(self.model, freeze_norm=self.recipe.freeze_norm)
        total = torch.zeros((), device=self.world.device)
        text = f"epoch {epoch + 1}/{self.recipe.epochs}"
        with progress_bar(text, self.steps, enabled=self.world.writer) as advance:
            self.clock.start()
            for step in range(self.steps):
                lr = lr_at(epoch * self.steps + step, self.recipe, steps_per_epoch=self.steps)
                total += self.step(stream, images=self.images_per_step // self.world.size, lr=lr)
                if (step + 1) % CHECK_EVERY == 0:
                    self._require_finite(total, epoch)
                advance(1)
                self.clock.lap("rest")
        self._require_finite(total, epoch)
        return self.world.mean(total).item() / self.steps

    def _stream(self, epoch: int) -> Iterator[Batch]:
        """Yield this process's share of the epoch's batches."""
        recipe, world = self.recipe, self.world
        # All random numbers depend on (seed, epoch) only: a resumed run draws what an uninterrupted
        # run draws.
        torch.manual_seed(recipe.seed * 1_000_003 + epoch + world.rank * 1_000_000_007)
        images = TrainingImages(
            self.job.data.split("train"),
            scaled(self.job.spec.preprocess, recipe.side(epoch)),
            recipe,
            epoch,
            self.read,
        )
        share = world.share(images.order()[: self.steps * self.images_per_step])
        return batches(
            images,
            share,
            batch_size=recipe.batch_size // world.size,
            workers=self.workers,
        )

    def _validate(self) -> dict[str, Any]:
        self._require_finite(
            torch.stack([p.detach().sum() for p in self.model.parameters()]).sum(), self.epoch
        )
        start = time.perf_counter()
        result = self.model if self.ema is None else self.ema.model
        self.world.share_buffers(result)
        part = self._answers(result)
        items = self.job.data.splits.get("val", ())
        answers = self.world.gathered(part.answers)
        self.val = Confusion(self.job.spec.labels, self.world.gathered_order(items), answers)
        return {
            "val": accuracy(self.world.gathered(part.ranks)),
            "val_seconds": round(time.perf_counter() - start, 2),
        }

    def _answers(self, model: FineGrained) -> Predictions:
        """Return the answers to this process's share of the val split."""
        return predictions(
            model,
            self.world.share(self.job.data.splits.get("val", ())),
            self.job.spec,
            device=self.world.device,
            workers=self.workers,
            progress="validating" if self.world.writer else "",
            read=self.read,
        )

    def _require_finite(self, value: torch.Tensor, epoch: int) -> None:
        if not math.isfinite(value.item()):
            resume = f"finedge train --out {self.job.path} --resume --lr {self.recipe.lr / 10:g}"
            raise FinedgeError(
                f"training diverged in epoch {epoch + 1} at lr {self.recipe.lr}: the loss or a "
                "weight is no longer finite",
                expected="a finite loss",
                fix=f"{resume} continues from the checkpoint of epoch {self.epoch}",
            )


def summary(
    path: Path, spec: Spec, rows: Sequence[Mapping[str, Any]], *, keep: Keep = "last"
) -> dict[str, Any]:
    """Return what `finedge train` prints about a run with the metrics `rows`.

    That is the accuracy on the val split after the last epoch, or after the best one if it is kept.
    """
    last = rows[-1]
    kept = rows[best_epoch(rows) - 1] if keep == "best" else last
    return {
        "run": str(path),
        "model": spec.model,
        "backbone": spec.backbone,
        "epochs": last["epoch"],
        **({"best_epoch": kept["epoch"]} if keep == "best" else {}),
        "split": "val",
        **kept["val"],
        "loss": kept["loss"],
        "images_per_s": last["images_per_s"],
        "seconds": round(sum(row["seconds"] + row["val_seconds"] for row in rows), 2),
        **({"profile": last["profile"]} if "profile" in last else {}),
    }


def _targets(job: Job) -> Targets:
    labels = [item.label for item in job.data.split("train")]
    return Targets(job.recipe, labels=labels, classes=len(job.spec.labels))


def _reader(job: Job) -> Read:
    """Return what decodes images: from the files, or from memory with `--cache ram`."""
    if job.machine.cache != "ram":
        return read_image
    items = (*job.data.split("train"), *job.data.splits.get("val", ()))
    return decoded_images([item.path for item in items], processes=job.world.local_size).read


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


def _line(row: dict[str, Any], epochs: int) -> str:
    top1 = row["val"]["top1"]
    val = "n/a" if top1 is None else f"{100 * top1:.1f} %"
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, val top-1 {val}, "
        f"{row['images_per_s']} images/s, lr {row['lr']:.4g}"
    )
