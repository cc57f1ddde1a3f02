"""What `finedge train` is asked for: four groups of options, flat on the command line.

No torch here, so that `finedge train --help` answers at once.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tyro.conf import UseAppendAction

from finedge.errors import UsageError
from finedge.train.device import Device
from finedge.train.options import parse_options

LogTo = Literal["tensorboard", "mlflow"]
MAX_WORKERS = 1024  # threads: more than any machine has cores
RESUMABLE = frozenset(
    ("out", "data", "epochs", "batch_size", "accumulate", "lr", "compile", "teacher", "patience")
)
"""The options that --resume takes: none of them changes what the checkpoint holds."""


@dataclass(frozen=True)
class RunOptions:
    """Which images, into which run.

    Attributes:
        out: folder to make; one that exists is only touched with --resume.
        data: folder of images: train/CLASS/*.jpg, CLASS/*.jpg, train.csv with lines `path,label`,
            or the lists of CUB-200-2011.
        seeds: train with this many seeds, from --seed on, into OUT/seedN. The result is their mean
            and range. The same command again continues where it stopped.
        resume: continue from the checkpoint in --out.
    """

    out: Path
    data: Path | None = None
    seeds: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.seeds is not None and self.resume:
            raise UsageError(
                "--seeds with --resume",
                expected="one of them",
                fix="leave --resume out: --seeds continues by itself",
            )


@dataclass(frozen=True)
class ModelOptions:
    """Which network is trained, and where its weights start.

    Attributes:
        model: see `finedge models`; default plain.
        backbone: see `finedge models`; default efficientnet_lite0.
        weights: initial weights of the backbone: imagenet (default), none, or a file. The folder of
            a run gives its whole model, where model and labels are the same.
    """

    model: str | None = None
    backbone: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class RecipeOptions:
    """How the network is trained: a recipe, the options that override it, and a teacher.

    Attributes:
        recipe: name of a shipped recipe, or a TOML file; default fine. The options below
            override it.
        epochs: passes over the training split.
        size: side of the network's input in pixels.
        batch_size: images in a batch, over all processes.
        accumulate: batches in one step of the optimizer.
        lr: peak learning rate of the new layers.
        seed: random seed of the split, the initial weights, the order and the augmentation.
        freeze: number of backbone stages that are not trained.
        ema: decay of the moving average of the weights; 0 is off.
        compile: run the model through torch.compile during training.
        quick: freeze the backbone, cache its feature maps, and train what comes after them. Without
            --recipe it takes the recipe quick.
        option: KEY=VALUE for the model, on top of the recipe's [options]. VALUE is JSON or text.
            Can be given several times.
        set: KEY=VALUE for any key of the recipe. VALUE is JSON or text. Can be given several times.
        teacher: a run whose scores the model learns from too. The recipe's distill_weight and
            distill_temperature apply.
    """

    recipe: str | None = None
    epochs: int | None = None
    size: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    lr: float | None = None
    seed: int | None = None
    freeze: int | None = None
    ema: float | None = None
    compile: bool = False
    quick: bool = False
    option: UseAppendAction[tuple[str, ...]] = ()
    set: UseAppendAction[tuple[str, ...]] = ()
    teacher: Path | None = None


@dataclass(frozen=True)
class MachineOptions:
    """What the training runs on; no result depends on it.

    Attributes:
        workers: threads of each process that prepare images; default one for each core.
        device: auto takes the GPU where there is one.
        profile: time the phases of each step. The training is then slightly slower.
        log_to: write the metrics of every epoch there too: TensorBoard (into OUT/tensorboard) or
            MLflow (where MLFLOW_TRACKING_URI says).
        cache: ram keeps the decoded images in memory, where half of the free memory holds them.
        maps: folder of the feature maps that --quick caches; default feature_maps beside --out.
    """

    workers: int | None = None
    device: Device = "auto"
    profile: bool = False
    log_to: LogTo | None = None
    cache: Literal["none", "ram"] = "none"
    maps: Path | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--workers {self.workers}", expected=f"1 to {MAX_WORKERS} threads")


DEFAULT_MODEL = ModelOptions()
DEFAULT_TRAINING = RecipeOptions()
THIS_MACHINE = MachineOptions()


@dataclass(frozen=True)
class TrainingRequest:
    """All options of one `finedge train`."""

    run: RunOptions
    model: ModelOptions = DEFAULT_MODEL
    recipe: RecipeOptions = DEFAULT_TRAINING
    machine: MachineOptions = THIS_MACHINE

    def command(self) -> str:
        """Return the command line that run.json records; seeds and machine are left out."""
        words = ["finedge", "train"]
        for name, value in self.options().items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                words.append(flag)
                continue
            for single in value if isinstance(value, tuple) else (value,):
                words += [flag, str(single)]
        return shlex.join([*words, "--resume"] if self.run.resume else words)

    def options(self) -> dict[str, Any]:
        """Return {option: value} of the options that differ from their defaults."""
        place = {"out": self.run.out, "data": self.run.data}
        options = {**place, **vars(self.model), **vars(self.recipe)}
        defaults = {f.name: f.default for f in fields(RecipeOptions)}
        return {name: v for name, v in options.items() if v != defaults.get(name)}

    def require_resumable(self, *, distilled: bool) -> None:
        """Refuse options that cannot change when a run is resumed.

        Args:
            distilled: whether the run learns from a teacher.

        Raises:
            UsageError: such an option was given.
        """
        allowed = RESUMABLE if distilled else RESUMABLE - {"teacher"}
        names = {name: f"--{name.replace('_', '-')}" for name in self.options() if name != "set"}
        keys = parse_options(self.recipe.set, flag="--set")
        names |= {key: f"--set {key}" for key in keys if key not in names}
        refused = sorted(set(names) - allowed)
        if refused:
            raise UsageError(
                f"{names[refused[0]]} cannot change with --resume",
                expected=f"only {', '.join(sorted(allowed))}",
                fix="leave it out, or train again from the start",
            )
