"""Train one model as `finedge train` does; print a row an epoch, and at last the test accuracy.

python benchmarks/gpu/train_one.py MODEL SEED DATA [--option KEY=VALUE] [--recipe FILE] [--epochs N]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from finedge.train.distributed import joined  # noqa: E402
from finedge.train.evaluate.accuracy import accuracy, predictions  # noqa: E402
from finedge.train.request import (  # noqa: E402
    MachineOptions,
    ModelOptions,
    RecipeOptions,
    RunOptions,
    TrainingRequest,
)
from finedge.train.session import fresh  # noqa: E402
from finedge.train.trainer import Trainer  # noqa: E402

RECIPE = Path(__file__).parent / "table.toml"


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"{sys.argv[1]} {sys.argv[2]}: %(message)s"
    )
    torch.set_num_threads(1)
    recipe = RecipeOptions(
        arguments.recipe,
        epochs=arguments.epochs,
        seed=arguments.seed,
        option=tuple(arguments.option),
    )
    machine = MachineOptions(arguments.workers)
    with tempfile.TemporaryDirectory() as folder, joined("auto") as world:
        run = RunOptions(Path(folder) / "run", arguments.data)
        request = TrainingRequest(run, ModelOptions(arguments.model), recipe, machine)
        trainer = fresh(request, world=world)
        print_epochs(trainer)
        trainer.run()
        model, job = trainer.model if trainer.ema is None else trainer.ema.model, trainer.job
        images = {"device": world.device, "workers": arguments.workers}
        answers = predictions(model, job.data.split("test"), job.spec, **images)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    result = {**_epoch(trainer), "test": accuracy(answers.ranks), "parameters": parameters}
    print(json.dumps(result), flush=True)


def print_epochs(trainer: Trainer) -> None:
    """Print a row whenever an epoch is saved: whoever ends this process early keeps it."""
    save = trainer.save

    def save_and_print() -> None:
        save()
        print(json.dumps(_epoch(trainer)), flush=True)

    trainer.save = save_and_print  # type: ignore[method-assign]


def _epoch(trainer: Trainer) -> dict[str, Any]:
    last = trainer.rows[-1]
    return {
        "val": last["val"]["top1"],
        "loss": round(last["loss"], 4),
        "epochs": last["epoch"],
        "images_per_s": last["images_per_s"],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("seed", type=int)
    parser.add_argument("data", type=Path)
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--recipe", default=str(RECIPE))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
