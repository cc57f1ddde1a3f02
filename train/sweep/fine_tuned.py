"""The stage `fine-tuned`: every run is a run of `finedge train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from finedge.data import select_images
from finedge.train.distributed import World
from finedge.train.evaluate.accuracy import predictions
from finedge.train.loader import default_workers
from finedge.train.run import load_run, recorded_data, recorded_split
from finedge.train.seeds import train_or_continue
from finedge.train.sweep.plan import SweepRun
from finedge.train.sweep.rows import Answers
from finedge.train.sweep.stage import Trained


class FineTunedStage:
    """Trains whole networks, each into a folder of its own. A run that was stopped continues.

    Args:
        data: {name: folder of images}.
        world: this process and its device.
    """

    def __init__(self, data: Mapping[str, Path], *, world: World) -> None:
        self.data, self.world = data, world

    def train(self, run: SweepRun, *, weights: Path) -> Trained:
        """Train into the folder `weights`, or continue there, and answer on val."""
        place = self.data[run.setting.group.data]
        request = run.setting.request(data=place, out=weights, seed=run.seed)
        result = train_or_continue(request, world=self.world)
        model = load_run(weights).model
        return Trained(
            val=self._answers(run, weights, split="val"),
            loss=result["loss"],
            parameters=sum(p.numel() for p in model.parameters()),
        )

    def test(self, run: SweepRun, *, weights: Path) -> Answers:
        """Return the answers of a trained run on the test split."""
        return self._answers(run, weights, split="test")

    def whole(self, run: SweepRun, *, weights: Path, spare: Path) -> Path:
        """Return `weights`: it is the folder of a run."""
        return weights

    def _answers(self, asked: SweepRun, path: Path, *, split: str) -> Answers:
        place = self.data[asked.setting.group.data]
        run, folder = load_run(path), recorded_data(path, root=place, whole=True)
        if not folder.splits.get(split):
            return Answers(np.zeros(0, np.bool_))
        chosen = select_images(folder, recorded_split(path), split=split)
        answers = predictions(
            run.model,
            chosen.items,
            run.spec,
            device=self.world.device,
            workers=default_workers(),
            progress=f"evaluating {split}",
        )
        return Answers(answers.ranks == 0)
