"""A training recipe: one frozen record, read from TOML, with options of the command line on top."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from finedge.errors import FinedgeError, UsageError, nearest
from finedge.schema import Misfit, decode
from finedge.spec import Method, Rule
from finedge.train.recipe_file import RECIPES, read_toml, recipe_names, require_plain

__all__ = ["RECIPES", "Recipe", "override", "read_recipe", "recipe_from", "recipe_names"]

# Upper ends: past them a value is a slip of the pen, and would set the size of an allocation or the
# length of a loop.
MOST_EPOCHS = 100_000
MOST_IMAGES = 65_536  # a batch; also the batches of a step
MOST_PIXELS = 4_096  # a side; the largest that papers on fine-grained images use is 1,024
MOST_RESIZED = 16_384  # a side, as in a bundle
MOST_BATCH_BYTES = 4 * 2**30  # of pixels; four batches are held at a time
MOST_AREA = 4.0  # times the image; CNL draws up to 1.25
MOST_MILESTONES = 1_000
MOST_TEMPERATURE = 1_000.0  # far past it, both distributions are uniform in float32
MOST_SEED = 2**32 - 1  # that of an epoch and a process is made of it, and fits 64 bits

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
    milestones: tuple[float, ...] = ()
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
        require_plain({f.name: getattr(self, f.name) for f in fields(self)})
        batch_bytes = self.batch_size * 3 * self.size**2
        for name, good, expected in (
            ("epochs", 1 <= self.epochs <= MOST_EPOCHS, f"1 to {MOST_EPOCHS}"),
            ("batch_size", 1 <= self.batch_size <= MOST_IMAGES, f"1 to {MOST_IMAGES}"),
            ("size", 32 <= self.size <= MOST_PIXELS, f"32 to {MOST_PIXELS} pixels"),
            (
                "batch_size",
                batch_bytes <= MOST_BATCH_BYTES,
                f"at most {MOST_BATCH_BYTES >> 30} GiB of pixels at size {self.size}",
            ),
            (
                "start_size",
                self.start_size == 0 or 32 <= self.start_size <= self.size,
                f"0, or 32 to size {self.size}",
            ),
            (
                "resize",
                self.resize == 0 or self.size <= self.resize <= MOST_RESIZED,
                f"0, or size {self.size} to {MOST_RESIZED}",
            ),
            (
                "rule",
                self.rule in ("", *get_args(Rule)),
                f"empty, or one of {', '.join(get_args(Rule))}",
            ),
            (
                "method",
                self.method in ("", *get_args(Method)),
                f"empty, or one of {', '.join(get_args(Method))}",
            ),
            ("lr", self.lr > 0, "a positive number"),
            ("backbone_lr", self.backbone_lr >= 0, "at least 0"),
            ("momentum", 0 <= self.momentum < 1, "0 <= momentum < 1"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            (
                "schedule",
                self.schedule in get_args(Schedule),
                f"one of {', '.join(get_args(Schedule))}",
            ),
            ("milestones", len(self.milestones) <= MOST_MILESTONES, f"at most {MOST_MILESTONES}"),
            (
                "milestones",
                all(0 <= m <= MOST_EPOCHS for m in self.milestones),
                f"epochs, 0 to {MOST_EPOCHS}",
            ),
            (
                "milestones",
                list(self.milestones) == sorted(set(self.milestones)),
                "epochs in rising order",
            ),
            (
                "milestones",
                bool(self.milestones) == (self.schedule == "step"),
                "epochs for schedule step, none for cosine",
            ),
            ("gamma", 0 < self.gamma <= 1, "0 < gamma <= 1"),
            ("warmup_epochs", 0 <= self.warmup_epochs <= MOST_EPOCHS, f"0 to {MOST_EPOCHS}"),
            ("warmup_start", 0 <= self.warmup_start <= self.lr, f"0 to lr {self.lr}"),
            ("accumulate", 1 <= self.accumulate <= MOST_IMAGES, f"1 to {MOST_IMAGES}"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "0 <= label_smoothing < 1"),
            (
                "augment",
                self.augment in get_args(Augment),
                f"one of {', '.join(get_args(Augment))}",
            ),
            ("min_area", 0 < self.min_area <= 1, "0 < min_area <= 1"),
            (
                "max_area",
                self.min_area <= self.max_area <= MOST_AREA,
                f"min_area {self.min_area} to {MOST_AREA}",
            ),
            ("pad", 0 <= self.pad <= self.size, f"0 to size {self.size}"),
            ("pad", self.pad == 0 or self.augment == "pad-crop", "0 unless augment is pad-crop"),
            ("rotation", 0 <= self.rotation <= 180, "0 to 180 degrees"),
            ("colour_jitter", 0 <= self.colour_jitter < 1, "0 <= colour_jitter < 1"),
            ("ema", 0 <= self.ema < 1, "0 <= ema < 1"),
            ("bf16", self.bf16 in get_args(Bf16), f"one of {', '.join(get_args(Bf16))}"),
            ("freeze", self.freeze >= 0, "at least 0"),
            ("distill_weight", 0 <= self.distill_weight <= 1, "0 to 1"),
            (
                "distill_temperature",
                0 < self.distill_temperature <= MOST_TEMPERATURE,
                f"above 0, to {MOST_TEMPERATURE}",
            ),
            ("seed", 0 <= self.seed <= MOST_SEED, f"0 to {MOST_SEED}"),
        ):
            if not good:
                raise UsageError(
                    f"recipe value {name} = {reprlib.repr(getattr(self, name))}",
                    expected=expected,
                )

    @property
    def resized(self) -> int:
        """The side in pixels before the crop."""
        return self.resize or round(self.size * 256 / 224)

    def side(self, epoch: int) -> int:
        """Return the side in pixels of the training images of an epoch (0-based), a multiple of 32 while it grows."""
        grown = min(1.0, epoch / max(1, 0.75 * self.epochs))
        if self.start_size == 0 or grown == 1:
            return self.size
        return min(
            self.size, round((self.start_size + grown * (self.size - self.start_size)) / 32) * 32
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data for run.json."""
        return {**asdict(self), "milestones": list(self.milestones)}


def read_recipe(name: str, **given: Any) -> Recipe:
    """Read a recipe by the name of a shipped one or the path of a TOML file; options that are not None override it.

    Raises:
        UsageError: no such recipe, not TOML, an unknown key (the nearest known one is suggested),
            or a value of a wrong type or range.
    """
    return override(recipe_from(read_toml(name)), **given)


def override(recipe: Recipe, **given: Any) -> Recipe:
    """Return `recipe` with the options that are not None.

    A new `size` brings its own `resize`; a new `epochs` moves the milestones of a step schedule, and its warm-up, in proportion.
    """
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    require_plain(options)
    if "size" in options:
        options.setdefault("resize", 0)
    longer = options.get("epochs", recipe.epochs) / recipe.epochs
    if recipe.schedule == "step" and longer != 1:
        options.setdefault("milestones", tuple(longer * m for m in recipe.milestones))
        options.setdefault("warmup_epochs", longer * recipe.warmup_epochs)
    return replace(recipe, **options)


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe of plain data; an absent key keeps its default.

    Raises:
        UsageError: an unknown key, or a value of another type or range.
    """
    require_plain(values)
    try:
        return decode(Recipe, values, strict=True)
    except Misfit as error:
        if isinstance(error.__cause__, FinedgeError):  # a range, whose text is better
            raise error.__cause__ from None
        if error.unknown:
            names = [f.name for f in fields(Recipe)]
            raise UsageError(
                f"unknown recipe key '{error.unknown[:60]}'",
                expected=nearest(error.unknown, names),
            ) from None
        raise UsageError(
            f"recipe value {error.at} = {reprlib.repr(error.value)}",
            expected=error.expected,
        ) from None
