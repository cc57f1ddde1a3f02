"""Runs and bundles of models that were never trained, made once for all tests that need them.

PyTorch is imported where it is used: this folder also holds tests of a device, which has none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from finedge.bundle import Bundle
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.synthetic.command import render
from tests.made_once import made_once

if TYPE_CHECKING:
    import torch

    from finedge.train.models import FineGrained
    from finedge.train.trainer import Trainer

SIDE = 64
LARGE = "resnet50"
# On ResNet-50: attention across layers, masks and segments, a gate in every residual unit. The
# others differ from these in their new layers only, which EfficientNet-Lite0 has too.
LARGE_MODELS = ("cnl", "attend_rectify", "csca")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    render(folder, classes=4, train=8, val=4, test=2, size=80)
    return folder


@pytest.fixture(scope="session")
def untrained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    return Untrained(pictures, tmp_path_factory)


class Untrained:
    """Makes runs and bundles of models that were not trained.

    Every parameter differs from its start. BatchNorms have the statistics of the pictures. Only the
    newest run is kept, for the disk. A bundle is made once for all processes.
    """

    def __init__(self, pictures: Path, folders: pytest.TempPathFactory) -> None:
        self.pictures, self.folders = pictures, folders
        self._runs: dict[tuple[str, str], Trainer] = {}

    def run(self, name: str, backbone: str) -> Trainer:
        """Return the run of a model; it is made again if another was asked for since."""
        if (name, backbone) not in self._runs:
            for older in self._runs.values():
                shutil.rmtree(older.job.path)
            self._runs = {(name, backbone): self._run(name, backbone)}
        return self._runs[name, backbone]

    def bundle(self, name: str, backbone: str) -> Bundle:
        """Return the bundle of a model."""
        make = partial(self._bundle, name, backbone)
        return Bundle.load(made_once(f"bundles/{name}-{backbone}.finedge", make))

    def _run(self, name: str, backbone: str) -> Trainer:
        import torch

        from finedge.train import session
        from finedge.train.checkpoint import NAME, save_checkpoint
        from finedge.train.distributed import World
        from finedge.train.request import (
            MachineOptions,
            ModelOptions,
            RecipeOptions,
            RunOptions,
            TrainingRequest,
        )

        # The weights of the small backbones come in packages.
        weights = "none" if backbone == LARGE else "imagenet"
        request = TrainingRequest(
            RunOptions(self.folders.mktemp("run") / "run", self.pictures),
            ModelOptions(name, backbone, weights),
            # Named, because bounds of tests were measured with the weights that it starts with.
            RecipeOptions(recipe="common", size=SIDE, batch_size=8, epochs=1),
            MachineOptions(workers=1),
        )
        trainer = session.fresh(request, world=World(torch.device("cpu")))
        _move(trainer.job.model)
        _settle(trainer.job.model, images(trainer, count=32), pretrained=weights != "none")
        save_checkpoint(
            trainer.job.path / NAME,
            trainer.job.model,
            optimizer=trainer.optimizer,
            ema=None,
            epoch=1,
        )
        return trainer

    def _bundle(self, name: str, backbone: str, path: Path) -> None:
        from finedge.calib.command import calibrate
        from finedge.calib.options import Int8Options
        from finedge.export.command import export

        run, segments = self.run(name, backbone).job.path, name == "attend_rectify"
        parity = export(run, out=path, segments=segments)["parity"]
        assert parity["max_abs"] <= parity["limit"]
        calibrate(path, data=self.pictures, int8=Int8Options(images=32))


def images(trainer: Trainer, *, count: int) -> torch.Tensor:
    """Training images as the model takes them: float [count, 3, SIDE, SIDE]."""
    import torch

    from finedge.train.loader import normalise

    how = trainer.job.spec.preprocess
    return normalise(
        torch.from_numpy(
            np.stack(
                [
                    preprocess(read_image(i.path), how)
                    for i in trainer.job.data.split("train")[:count]
                ]
            )
        ),
        how,
    )


@pytest.fixture(scope="session")
def images_of() -> Callable[..., torch.Tensor]:
    return images


def _move(model: FineGrained) -> None:
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.new_parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def _settle(model: FineGrained, batch: torch.Tensor, *, pretrained: bool) -> None:
    """Give every untrained BatchNorm the statistics of a batch.

    Without them, activations grow or vanish over fifty layers.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    trained = set(model.backbone.modules()) if pretrained else set()
    for end in () if pretrained else model.backbone.residual_ends:
        # The branches of trained residual networks change little. Sixteen random ones at full size
        # turn every input into noise.
        torch.nn.init.constant_(
            next(
                m for m in model.backbone.get_submodule(end).modules() if isinstance(m, _BatchNorm)
            ).weight,
            0.2,
        )
    model.train()
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        if norm in trained:
            norm.eval()
            continue
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of what was seen
    with torch.no_grad():
        model(batch)
