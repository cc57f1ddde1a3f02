"""`finedge train`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from finedge.train.device import Device

log = logging.getLogger(__name__)


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
    lr: float | None = None,
    seed: int | None = None,
    freeze: int | None = None,
    ema: float | None = None,
    workers: int | None = None,
    device: Device = "auto",
    resume: bool = False,
) -> dict[str, Any]:
    """Train a classifier on a folder of images; the accuracy after the last epoch, on the val split, is the result.

    Args:
        out: folder to make; one that exists is only touched with --resume.
        data: folder of images (train/CLASS/*.jpg, CLASS/*.jpg, train.txt of `path, label`, or CUB's lists).
        model: see `finedge models`; default cnl.
        backbone: see `finedge models`; default efficientnet_lite0.
        weights: of the backbone: imagenet (default), none, or a file.
        recipe: name of a shipped recipe, or a TOML file; default common. The options below override it.
        epochs: passes over the training split.
        size: side of the network's input in pixels.
        batch_size: images a step.
        lr: peak learning rate of the new layers.
        seed: of cut, initial weights, order and augmentation.
        freeze: backbone stages that are not trained.
        ema: decay of the moving average of the weights; 0 is off.
        workers: threads that prepare images; default one a core.
        device: auto takes the GPU where there is one.
        resume: go on from the checkpoint in --out.
    """
    options: dict[str, Any] = {"out": out, "data": data, "model": model, "backbone": backbone, "weights": weights, "recipe": recipe}
    options |= {"epochs": epochs, "size": size, "batch_size": batch_size, "lr": lr, "seed": seed, "freeze": freeze, "ema": ema}
    given = {name: value for name, value in options.items() if value is not None}
    from finedge.train import session

    trainer = (session.resumed if resume else session.fresh)(out, given, device=device, workers=workers)
    try:
        trainer.run()
    except KeyboardInterrupt:
        log.warning("interrupted; %s holds the checkpoint of epoch %d. To go on: finedge train --out %s --resume", out, trainer.epoch, out)
        raise
    return trainer.result()
