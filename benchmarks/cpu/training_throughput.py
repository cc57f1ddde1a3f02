"""finedge's training loop against a straight torchvision one: one JSON object on stdout.

    python benchmarks/cpu/training_throughput.py DATA [--size 224] [--workers 2] [--steps 20]

DATA has train/CLASS/*.jpg. The straight loop is that of torchvision's references: an ImageFolder,
transforms v2 (RandomResizedCrop, flip), a DataLoader with worker processes, forward, backward, SGD.
Both have the same model with the same initial weights, batch, precision, memory format, number of
workers and kind of augmentation. They take turns in changing order, so that a busy machine slows
both alike. finedge prepares images with threads, the DataLoader with processes that stay alive
between the rounds.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from finedge.cli import logs_to_stderr
from finedge.train.distributed import World, joined
from finedge.train.request import (
    MachineOptions,
    ModelOptions,
    RecipeOptions,
    RunOptions,
    TrainingRequest,
)
from finedge.train.session import fresh
from finedge.train.trainer import Trainer

RECIPE = """
augment = "resized-crop"
min_area = 0.08
flip = true
epochs = {epochs}
lr = 0.001
"""


@dataclass(frozen=True)
class Settings:
    """What both loops share."""

    data: tyro.conf.Positional[Path]
    backbone: str = "efficientnet_lite0"
    size: int = 224
    batch_size: int = 32
    workers: int = os.cpu_count() or 1
    steps: int = 20
    rounds: int = 3


def main(settings: tyro.conf.OmitArgPrefixes[Settings]) -> None:
    """Time both loops in turns and print the images per second of each and their ratio."""
    logs_to_stderr()
    with tempfile.TemporaryDirectory() as folder, joined("auto") as world:
        trainer = finedge_trainer(Path(folder), settings, world=world)
        loops = {"finedge": trainer.train_epoch, "straight": straight_loop(trainer, settings)}
        seconds = in_turns(loops, settings.rounds)
    images = settings.steps * settings.batch_size
    rates = {
        name: round(images * settings.rounds / sum(times), 2) for name, times in seconds.items()
    }
    print(
        json.dumps(
            {
                **rates,
                "ratio": round(rates["finedge"] / rates["straight"], 4),
                **described(settings, world.device),
                "seconds": seconds,
            }
        )
    )


def finedge_trainer(folder: Path, settings: Settings, *, world: World) -> Trainer:
    """Return a trainer whose epochs have as many steps as are measured."""
    (folder / "recipe.toml").write_text(RECIPE.format(epochs=settings.rounds + 1))
    request = TrainingRequest(
        RunOptions(folder / "run", settings.data),
        ModelOptions("plain", settings.backbone, "none"),
        RecipeOptions(
            str(folder / "recipe.toml"), size=settings.size, batch_size=settings.batch_size
        ),
        MachineOptions(settings.workers),
    )
    trainer = fresh(request, world=world)
    if trainer.steps < settings.steps:
        raise SystemExit(
            f"{settings.data} has images for {trainer.steps} steps, not {settings.steps}"
        )
    trainer.steps = settings.steps  # further images are left out
    return trainer


def straight_loop(trainer: Trainer, settings: Settings) -> Callable[[int], None]:
    """Return an epoch of `steps` steps as torchvision's references train.

    It trains a copy of the trainer's model.
    """
    device, recipe = trainer.world.device, trainer.recipe
    preprocess = trainer.job.spec.preprocess
    crop = v2.RandomResizedCrop(settings.size, scale=(recipe.min_area, 1.0), antialias=True)
    floats = [
        v2.PILToTensor(),
        v2.ToDtype(torch.float, scale=True),
        v2.Normalize(preprocess.mean, preprocess.std),
    ]
    images = ImageFolder(
        settings.data / "train", v2.Compose([crop, v2.RandomHorizontalFlip(), *floats])
    )
    loader = torch.utils.data.DataLoader(
        images,
        batch_size=settings.batch_size,
        sampler=torch.utils.data.RandomSampler(
            images, num_samples=settings.steps * settings.batch_size
        ),
        num_workers=settings.workers,
        pin_memory=device.type == "cuda",
        persistent_workers=settings.workers > 0,
    )
    model = copy.deepcopy(trainer.model)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )

    def epoch(_number: int) -> None:
        model.train()
        for images_, targets_ in loader:
            frames = images_.to(device, non_blocking=True, memory_format=torch.channels_last)
            targets = targets_.to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=trainer.step.bf16):
                loss = criterion(model(frames)["logits"], targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the GPU

    return epoch


def in_turns(loops: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round of each loop, after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds + 1):
        for name in sorted(loops, reverse=bool(number % 2)):
            start = time.perf_counter()
            loops[name](number)
            seconds[name].append(round(time.perf_counter() - start, 3))
    return {name: times[1:] for name, times in seconds.items()}


def described(settings: Settings, device: torch.device) -> dict[str, Any]:
    """Return the settings and the machine as plain data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    load = round(os.getloadavg()[0], 2)
    return {
        **{k: str(v) if isinstance(v, Path) else v for k, v in vars(settings).items()},
        "device": name,
        "threads": torch.get_num_threads(),
        "load": load,
    }


if __name__ == "__main__":
    main(tyro.cli(Settings))
