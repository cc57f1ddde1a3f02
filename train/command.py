"""`finedge train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from finedge.errors import UsageError
from finedge.train.device import Device

if TYPE_CHECKING:
    from finedge.train.distributed import World
    from finedge.train.trainer import Machine

MOST_WORKERS = 1024  # threads: more than any machine has cores


def train(
    *,
    out: Path,
    data: Path | None = None,
    model: str | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    freeze: int | None = None,
    ema: float | None = None,
    compile: bool = False,
    option: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    teacher: Path | None = None,
    seeds: int | None = None,
    workers: int | None = None,
    device: Device = "auto",
    profile: bool = False,
    resume: bool = False,
) -> dict[str, Any] | None:
    """Train a classifier on a folder of images; the accuracy after the last epoch, on the val split, is the result.

    In several processes: torchrun --nproc-per-node N -m finedge train ...; the first one prints the result.

    Args:
        out: folder to make; one that exists is only touched with --resume.
        data: folder of images (train/CLASS/*.jpg, CLASS/*.jpg, train.txt of `path, label`, or CUB's lists).
        model: see `finedge models`; default cnl.
        backbone: see `finedge models`; default efficientnet_lite0.
        weights: of the backbone: imagenet (default), none, or a file.
        recipe: name of a shipped recipe, or a TOML file; default common. The options below override it.
        epochs: passes over the training split.
        size: side of the network's input in pixels.
        batch_size: images a batch, of all processes together.
        accumulate: batches a step of the optimizer.
        lr: peak learning rate of the new layers.
        seed: of cut, initial weights, order and augmentation.
        freeze: backbone stages that are not trained.
        ema: decay of the moving average of the weights; 0 is off.
        compile: run the model through torch.compile while training.
        option: KEY=VALUE for the model, on top of the recipe's [options]; VALUE is JSON or text. Can be given several times.
        teacher: a run to learn from too (the recipe's distill_weight and distill_temperature).
        seeds: train this many seeds, from --seed on, into OUT/seedN; the result is their mean and range. Again, to go on.
        workers: threads that prepare images; default one a core.
        device: auto takes the GPU where there is one.
        profile: time the phases of a step (a little slower).
        resume: go on from the checkpoint in --out.
    """
    options: dict[str, Any] = {
        "out": out,
        "data": data,
        "model": model,
        "backbone": backbone,
        "weights": weights,
        "recipe": recipe,
    }
    options |= {
        "epochs": epochs,
        "size": size,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "lr": lr,
        "seed": seed,
        "freeze": freeze,
    }
    options |= {
        "ema": ema,
        "compile": compile or None,
        "option": option or None,
        "teacher": teacher,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if seeds is not None and resume:
        raise UsageError(
            "--seeds with --resume",
            expected="one of them",
            fix="leave --resume out: --seeds goes on by itself",
        )
    from finedge.train.distributed import joined

    with joined(device) as world:
        result = _train(
            out,
            given,
            machine=_machine(world, workers, profile=profile),
            seeds=seeds,
            resume=resume,
        )
    return result if world.writer else None


def _train(
    out: Path, given: dict[str, Any], *, machine: Machine, seeds: int | None, resume: bool
) -> dict[str, Any]:
    from finedge.train import session
    from finedge.train.seeds import train_seeds

    if seeds is not None:
        return train_seeds(out, given, seeds=seeds, machine=machine)
    trainer = (session.resumed if resume else session.fresh)(out, given, machine=machine)
    trainer.run()
    return trainer.result()


def _machine(world: World, workers: int | None, *, profile: bool) -> Machine:
    from finedge.train.loader import default_workers
    from finedge.train.trainer import Machine

    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"--workers {workers}", expected=f"1 to {MOST_WORKERS} threads")
    return Machine(world, workers or max(1, default_workers() // world.local_size), profile)
