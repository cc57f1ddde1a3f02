"""A training recipe: one frozen record, read from TOML, with options of the command line on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import tomllib

from finedge.errors import UsageError, nearest
from finedge.spec import Rule

RECIPES = Path(__file__).with_name("recipes")

Augment = Literal["resized-crop", "crop", "pad-crop"]
Schedule = Literal["cosine", "step"]
Bf16 = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are the common recipe of the papers (SGD, one cosine, label smoothing).

    Attributes:
        epochs: passes over the training split; the accuracy after the last one is the reported one.
        batch_size: images a step; an incomplete last batch is left out.
        size: side of the network's input in pixels.
        start_size: side of the training images in the first epoch; it grows to `size` over three quarters of the epochs (progressive
            learning, EfficientNetV2, arXiv 2104.00298). 0 stands for `size` throughout.
        resize: side before the crop in pixels; 0 stands for size * 256 / 224.
        rule: `short-side` or `squash` (both sides, as papers that write 550x550 do); empty stands for the backbone's.
        method: resampling; empty stands for the one the backbone was pretrained with.
        lr: peak learning rate of the new layers at `batch_size` (it is not scaled).
        backbone_lr: factor on `lr` for a pretrained backbone; a backbone without weights gets `lr` itself.
        momentum: of SGD.
        nesterov: use Nesterov's momentum.
        weight_decay: L2 factor.
        decay_norm: decay normalisation weights and biases too.
        schedule: what follows the warm-up: half a `cosine` down to 0, or `step`: times `gamma` at each of `milestones`.
        milestones: after how many finished epochs (warm-up included) the rate drops.
        gamma: factor of a drop.
        warmup_epochs: epochs of linear warm-up.
        warmup_start: learning rate of the new layers at which the warm-up starts.
        accumulate: batches whose gradients are averaged for one step of the optimizer.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        augment: `resized-crop` cuts a box of random area and shape, `crop` a random box of the size that evaluation cuts, `pad-crop` adds
            `pad` pixels by reflection on each side of the resized image and cuts a random box of `size`.
        min_area: least share of the image that `resized-crop` keeps, in (0, 1].
        max_area: largest share that is drawn, at least `min_area`. A box that does not fit is drawn again, so that more than 1 (CNL's 1.25)
            only makes that more frequent: the boxes kept are spread as with 1.
        pad: pixels of `pad-crop`, at `size`.
        flip: mirror half of the images.
        colour_jitter: greatest relative change of brightness, contrast and saturation, in [0, 1); 0 is off.
        rotation: greatest angle in degrees to either side, in [0, 180]; the corners are filled by reflection; 0 is off.
        ema: decay of the moving average of the weights, in [0, 1); 0 is off. If on, the average is the result.
        bf16: autocast; `auto` is on for CUDA and off for the CPU.
        channels_last: memory format of weights and images.
        compile: run the model through torch.compile.
        freeze: backbone stages, from the input on, that are not trained.
        freeze_norm: BatchNorm of the whole model uses its stored statistics and does not change them.
        distill_weight: share of the teacher's term in the loss where a teacher is given, in [0, 1].
        distill_temperature: temperature of both distributions in that term, positive (arXiv 1503.02531).
        seed: of the cut, the initial weights, the order and the augmentation.
        options: of the model, as in `[options]` of the file.
    """

    epochs: int = 100
    batch_size: int = 32
    size: int = 448
    start_size: int = 0
    resize: int = 0
    rule: str = ""
    method: str = ""
    lr: float = 0.05
    backbone_lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norm: bool = True
    schedule: Schedule = "cosine"
    milestones: Sequence[float] = ()
    gamma: float = 0.1
    warmup_epochs: float = 1.0
    warmup_start: float = 0.0
    accumulate: int = 1
    label_smoothing: float = 0.1
    augment: Augment = "crop"
    min_area: float = 0.25
    max_area: float = 1.0
    pad: int = 0
    flip: bool = True
    colour_jitter: float = 0.0
    rotation: float = 0.0
    ema: float = 0.0
    bf16: Bf16 = "auto"
    channels_last: bool = True
    compile: bool = False
    freeze: int = 0
    freeze_norm: bool = False
    distill_weight: float = 0.5
    distill_temperature: float = 4.0
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("size", self.size >= 32, "at least 32 pixels"),
            ("start_size", self.start_size == 0 or 32 <= self.start_size <= self.size, f"0, or 32 to size {self.size}"),
            ("resize", self.resize == 0 or self.resize >= self.size, f"0, or at least size {self.size}"),
            ("rule", self.rule in ("", *get_args(Rule)), f"empty, or one of {', '.join(get_args(Rule))}"),
            ("lr", self.lr > 0, "a positive number"),
            ("backbone_lr", self.backbone_lr >= 0, "at least 0"),
            ("momentum", 0 <= self.momentum < 1, "0 <= momentum < 1"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("schedule", self.schedule in get_args(Schedule), f"one of {', '.join(get_args(Schedule))}"),
            ("milestones", list(self.milestones) == sorted(set(self.milestones)), "epochs in rising order"),
            ("milestones", bool(self.milestones) == (self.schedule == "step"), "epochs for schedule step, none for cosine"),
            ("gamma", 0 < self.gamma <= 1, "0 < gamma <= 1"),
            ("warmup_epochs", self.warmup_epochs >= 0, "at least 0"),
            ("warmup_start", 0 <= self.warmup_start <= self.lr, f"0 to lr {self.lr}"),
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "0 <= label_smoothing < 1"),
            ("augment", self.augment in get_args(Augment), f"one of {', '.join(get_args(Augment))}"),
            ("min_area", 0 < self.min_area <= 1, "0 < min_area <= 1"),
            ("max_area", self.max_area >= self.min_area, f"at least min_area {self.min_area}"),
            ("pad", self.pad >= 0, "at least 0 pixels"),
            ("pad", self.pad == 0 or self.augment == "pad-crop", "0 unless augment is pad-crop"),
            ("rotation", 0 <= self.rotation <= 180, "0 to 180 degrees"),
            ("colour_jitter", 0 <= self.colour_jitter < 1, "0 <= colour_jitter < 1"),
            ("ema", 0 <= self.ema < 1, "0 <= ema < 1"),
            ("bf16", self.bf16 in get_args(Bf16), f"one of {', '.join(get_args(Bf16))}"),
            ("freeze", self.freeze >= 0, "at least 0"),
            ("distill_weight", 0 <= self.distill_weight <= 1, "0 to 1"),
            ("distill_temperature", self.distill_temperature > 0, "a positive number"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            if not good:
                raise UsageError(f"recipe value {name} = {getattr(self, name)!r}", expected=expected)

    @property
    def resized(self) -> int:
        """The side in pixels before the crop."""
        return self.resize or round(self.size * 256 / 224)

    def side(self, epoch: int) -> int:
        """Return the side in pixels of the training images of an epoch (0-based), a multiple of 32 while it grows."""
        grown = min(1.0, epoch / max(1, 0.75 * self.epochs))
        if self.start_size == 0 or grown == 1:
            return self.size
        return min(self.size, round((self.start_size + grown * (self.size - self.start_size)) / 32) * 32)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for run.json."""
        return {**asdict(self), "milestones": list(self.milestones)}


def read_recipe(name: str, **given: Any) -> Recipe:
    """Read a recipe by the name of a shipped one or the path of a TOML file; options that are not None override it.

    Raises:
        UsageError: no such recipe, not TOML, an unknown key (the nearest known one is suggested), or a value of a wrong type.
    """
    return override(recipe_from(_read_toml(name)), **given)


def override(recipe: Recipe, **given: Any) -> Recipe:
    """Return `recipe` with the options that are not None.

    A new `size` brings its own `resize`; a new `epochs` moves the milestones of a step schedule, and its warm-up, in proportion.
    """
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if "size" in options:
        options.setdefault("resize", 0)
    longer = options.get("epochs", recipe.epochs) / recipe.epochs
    if recipe.schedule == "step" and longer != 1:
        options.setdefault("milestones", tuple(longer * m for m in recipe.milestones))
        options.setdefault("warmup_epochs", longer * recipe.warmup_epochs)
    return replace(recipe, **options)


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe of plain data, checking keys and types; a key that is absent keeps its default."""
    default = Recipe()
    known = {f.name: type(getattr(default, f.name)) for f in fields(Recipe)}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"unknown recipe key '{key}'", expected=nearest(key, known))
        if not _fits(value, known[key]):
            wanted = "a list of numbers" if known[key] is tuple else f"a value of type {known[key].__name__}"
            raise UsageError(f"recipe value {key} = {value!r}", expected=wanted)
    return Recipe(**{**values, "milestones": tuple(values.get("milestones", ()))})


def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes."""
    return tuple(sorted(p.stem for p in RECIPES.glob("*.toml")))


def _read_toml(name: str) -> dict[str, Any]:
    path = RECIPES / f"{name}.toml" if name in recipe_names() else Path(name)
    try:
        return tomllib.loads(path.read_text())
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"unknown recipe '{name}'", expected=nearest(name, recipe_names()), fix="name a shipped recipe or a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _fits(value: Any, wanted: type) -> bool:
    if wanted is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, float) for v in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
