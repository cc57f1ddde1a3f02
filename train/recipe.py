"""A training recipe: one frozen record, read from TOML."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from finedge.errors import FinedgeError, UsageError, nearest
from finedge.schema import Misfit, decode
from finedge.spec import Method, Rule
from finedge.train.recipe_file import RECIPES, read_toml, recipe_names, require_plain

__all__ = ["RECIPES", "Recipe", "read_recipe", "recipe_from", "recipe_names"]

# Upper limits. A value past one of them is a typing error, and it would set the size of an
# allocation or the length of a loop.
MAX_EPOCHS = 100_000
MAX_IMAGES = 65_536  # in a batch; also the batches of a step
MAX_PIXELS = 4_096  # a side; the largest that papers on fine-grained images use is 1,024
MAX_RESIZED = 16_384  # a side, as in a bundle
MAX_BATCH_BYTES = 4 * 2**30  # of pixels; four batches are held at a time
MAX_AREA = 4.0  # times the image; CNL draws up to 1.25
MAX_MILESTONES = 1_000
MAX_TEMPERATURE = 1_000.0  # far past it, both distributions are uniform in float32
MAX_ALPHA = 100.0  # of a beta distribution: past it, all images are mixed half and half
MAX_VAL = 0.5  # of train; more is a typing error
MAX_VIEWS = 1_000  # of each image: as many as epochs that see a new one each time
MAX_SEED = 2**32 - 1  # the seed of an epoch and a process is made of it, and fits 64 bits

Augment = Literal["resized-crop", "crop", "pad-crop"]
Schedule = Literal["cosine", "step"]
Bf16 = Literal["auto", "on", "off"]
Optimizer = Literal["sgd", "adamw"]
Sampling = Literal["shuffle", "balanced"]
ClassWeights = Literal["none", "balanced"]
Keep = Literal["last", "best"]


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`; `ends` says as in mathematics whether an end belongs."""

    low: float
    high: float = math.inf
    ends: Literal["[]", "[)", "(]"] = "[]"

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.ends[0] == "(" else self.low <= value
        return above and (value < self.high if self.ends[1] == ")" else value <= self.high)

    def __str__(self) -> str:
        low, high = (f"{end:.10g}" for end in (self.low, self.high))
        start = f"more than {low}" if self.ends[0] == "(" else f"at least {low}"
        if self.high == math.inf:
            return start
        if self.ends == "[]":
            return f"{low} to {high}"
        return f"{start}, {'less than' if self.ends[1] == ')' else 'at most'} {high}"


RANGES = {
    "epochs": Interval(1, MAX_EPOCHS),
    "batch_size": Interval(1, MAX_IMAGES),
    "size": Interval(32, MAX_PIXELS),
    "lr": Interval(0, ends="(]"),
    "backbone_lr": Interval(0),
    "layer_decay": Interval(0, 1, "(]"),
    "momentum": Interval(0, 1, "[)"),
    "weight_decay": Interval(0),
    "gamma": Interval(0, 1, "(]"),
    "warmup_epochs": Interval(0, MAX_EPOCHS),
    "head_epochs": Interval(0, MAX_EPOCHS),
    "full_epochs": Interval(0, MAX_EPOCHS),
    "full_lr": Interval(0, 1, "(]"),
    "accumulate": Interval(1, MAX_IMAGES),
    "label_smoothing": Interval(0, 1, "[)"),
    "min_area": Interval(0, 1, "(]"),
    "rotation": Interval(0, 180),
    "colour_jitter": Interval(0, 1, "[)"),
    "mixup": Interval(0, MAX_ALPHA),
    "cutmix": Interval(0, MAX_ALPHA),
    "mix_share": Interval(0, 1),
    "randaugment": Interval(0, 30),
    "random_erasing": Interval(0, 1),
    "patience": Interval(0, MAX_EPOCHS),
    "hue": Interval(0, 0.5),
    "val": Interval(0, MAX_VAL),
    "ema": Interval(0, 1, "[)"),
    "freeze": Interval(0),
    "views": Interval(0, MAX_VIEWS),
    "distill_weight": Interval(0, 1),
    "distill_temperature": Interval(0, MAX_TEMPERATURE, "(]"),
    "seed": Interval(0, MAX_SEED),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "rule": ("", *get_args(Rule)),
    "method": ("", *get_args(Method)),
    "schedule": get_args(Schedule),
    "augment": get_args(Augment),
    "bf16": get_args(Bf16),
    "optimizer": get_args(Optimizer),
    "sampling": get_args(Sampling),
    "class_weights": get_args(ClassWeights),
    "keep": get_args(Keep),
}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    The defaults are the common recipe of the papers: SGD, one cosine, label smoothing.

    Attributes:
        epochs: passes over the training split; the accuracy after the last one is reported.
        batch_size: images in a batch; an incomplete last batch is left out.
        size: side of the network's input in pixels.
        start_size: side of the training images in the first epoch. It grows over three
            quarters of the epochs (progressive learning, EfficientNetV2, arXiv 2104.00298).
            0 means the last side throughout.
        train_size: side that the training images grow to; 0 means `size`. Random crops show things
            larger than evaluation does. Training at 0.8 of `size` makes up for that (FixRes, arXiv
            1906.06423), and costs two thirds.
        resize: side before the crop in pixels; 0 means size * 256 / 224.
        rule: `short-side`, or `squash` for both sides, as papers that write 550x550 do. Empty means
            the backbone's rule.
        method: resampling; empty means the one that the backbone was pretrained with.
        lr: peak learning rate of the new layers at `batch_size` (it is not scaled).
        backbone_lr: factor on `lr` for a pretrained backbone. A backbone without weights gets `lr`.
        optimizer: `sgd`, or `adamw` (arXiv 1711.05101), whose rates are usually a hundredth.
        layer_decay: factor on the learning rate for each block of the backbone, from its end to its
            start, in (0, 1]; 1 is off. About 0.9 is usual for networks of 12 to 20 blocks.
        momentum: of SGD; beta1 of AdamW.
        nesterov: use Nesterov's momentum; AdamW has none.
        weight_decay: L2 factor.
        decay_norm: also decay the weights and biases of normalisation layers.
        schedule: what follows the warm-up. `cosine` is half a cosine down to 0. `step` multiplies
            the rate by `gamma` at each of `milestones`.
        milestones: numbers of finished epochs (warm-up included) at which the rate drops.
        gamma: factor of a drop.
        warmup_epochs: epochs of linear warm-up.
        warmup_start: learning rate of the new layers at the start of the warm-up.
        head_epochs: of `epochs`, the first ones, in which only the new layers are trained, with a
            warm-up and a cosine of their own (LP-FT, arXiv 2202.10054). BatchNorm of the backbone
            keeps its statistics in them. A recipe's have no effect without pretrained weights.
        full_epochs: of `epochs`, the last ones, on images of `size`, with a warm-up and a cosine of
            their own. FixRes also ends with images as evaluation has them.
        full_lr: factor on `lr` in these epochs, in (0, 1].
        accumulate: batches whose gradients are averaged for one step of the optimizer.
        label_smoothing: part of the target that is spread over all classes, in [0, 1).
        augment: `resized-crop` cuts a box of random area and shape. `crop` cuts a random box of the
            size that evaluation cuts. `pad-crop` adds `pad` pixels by reflection on each side of
            the resized image and cuts a random box of `size`.
        min_area: smallest part of the image that `resized-crop` keeps, in (0, 1].
        max_area: largest part that is drawn, at least `min_area`. A box that does not fit is drawn
            again, so more than 1 (CNL: 1.25) only makes new draws more frequent: the boxes that are
            kept are distributed as with 1.
        pad: pixels of `pad-crop`, at `size`.
        flip: mirror half of the images.
        colour_jitter: largest relative change of brightness, contrast and saturation, in [0, 1);
            0 is off.
        hue: largest change of the hue to either side, in turns of the colour wheel, in [0, 0.5]; 0
            is off.
        rotation: largest angle in degrees to either side, in [0, 180]. The corners are filled by
            reflection; 0 is off.
        mixup: alpha of the beta distribution of mixup (arXiv 1710.09412): two images of a batch are
            averaged, and their targets too; 0 is off. Papers use 0.1 to 0.8.
        cutmix: alpha of CutMix (arXiv 1905.04899): a box of one image is put into another; 0 is
            off. Papers use 1.0. With mixup, each mixed batch takes one of both, at even odds.
        mix_share: share of the batches that are mixed, in [0, 1].
        randaugment: magnitude of RandAugment (arXiv 1909.13719), 0 to 30: two random changes of
            colour or geometry; 0 is off. Papers use 9.
        random_erasing: share of the images of which a random box is filled with the mean colour
            (arXiv 1708.04896), in [0, 1]; 0 is off.
        sampling: `shuffle` shows each image once an epoch. `balanced` shows as many images, equally
            many of each class: those of rare classes several times.
        class_weights: `balanced` multiplies the loss of an image by n / (classes * images of its
            class), of n training images. The teacher's term has no such weight.
        patience: stop after so many epochs without a better top-1 on val; 0 is off.
        keep: which weights are the result: of the `last` epoch, or of the `best` one on val. The
            accuracy on val is then too good: it chose the epoch.
        ema: decay of the moving average of the weights, in [0, 1); 0 is off. If it is on, the
            average is the result.
        bf16: autocast; `auto` is on for CUDA and off for the CPU.
        channels_last: memory format of weights and images.
        compile: run the model through torch.compile.
        freeze: number of backbone stages, from the input on, that are not trained. A recipe's has
            no effect without pretrained weights. With `--quick` their maps are cached and the other
            stages are trained; 0 caches the whole backbone.
        views: augmented views of each training image whose feature maps `--quick` caches, beside
            the pixels of evaluation.
        freeze_norm: BatchNorm of the whole model uses its stored statistics and does not update
            them.
        distill_weight: weight of the teacher's term in the loss where there is a teacher, in
            [0, 1].
        distill_temperature: temperature of both distributions in that term, positive
            (arXiv 1503.02531).
        val: share of train that becomes the val split where the data set has none, in [0, 0.5].
            With 0 all of the official training split is trained on, as in papers. There is then no
            val split: training reports no accuracy, and calibration fits no confidence.
        seed: of the split, the initial weights, the order and the augmentation.
        options: of the model, as in `[options]` of the file.

    Raises:
        UsageError: a value is out of its range; `expected` has the range.
    """

    epochs: int = 100
    batch_size: int = 32
    size: int = 448
    start_size: int = 0
    train_size: int = 0
    resize: int = 0
    rule: str = ""
    method: str = ""
    lr: float = 0.05
    backbone_lr: float = 0.1
    optimizer: Optimizer = "sgd"
    layer_decay: float = 1.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norm: bool = True
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup_epochs: float = 1.0
    warmup_start: float = 0.0
    head_epochs: int = 0
    full_epochs: int = 0
    full_lr: float = 0.1
    accumulate: int = 1
    label_smoothing: float = 0.1
    augment: Augment = "crop"
    min_area: float = 0.25
    max_area: float = 1.0
    pad: int = 0
    flip: bool = True
    colour_jitter: float = 0.0
    hue: float = 0.0
    rotation: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_share: float = 1.0
    randaugment: int = 0
    random_erasing: float = 0.0
    sampling: Sampling = "shuffle"
    class_weights: ClassWeights = "none"
    patience: int = 0
    keep: Keep = "last"
    ema: float = 0.0
    bf16: Bf16 = "auto"
    channels_last: bool = True
    compile: bool = False
    freeze: int = 0
    views: int = 4
    freeze_norm: bool = False
    distill_weight: float = 0.5
    distill_temperature: float = 4.0
    val: float = 0.1
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        require_plain(values)
        for name, interval in RANGES.items():
            self._require(name, values[name] in interval, str(interval))
        for name, choices in CHOICES.items():
            listed = ", ".join(filter(None, choices))
            expected = f"empty, or one of {listed}" if "" in choices else f"one of {listed}"
            self._require(name, values[name] in choices, expected)
        for name, valid, expected in self._relations():
            self._require(name, valid, expected)

    @property
    def resized(self) -> int:
        """The side in pixels before the crop."""
        return self.resize or round(self.size * 256 / 224)

    @property
    def all_epochs(self) -> int:
        """The epochs between those of `head_epochs` and of `full_epochs`."""
        return self.epochs - self.head_epochs - self.full_epochs

    @property
    def last_side(self) -> int:
        """The side in pixels that the training images grow to."""
        return self.train_size or self.size

    def side(self, epoch: int) -> int:
        """Return the side in pixels of the training images of an epoch (0-based).

        While it grows it is a multiple of 32. New layers that are trained alone see `size`, because
        small images have other features: after 3 epochs at 128 px the val top-1 of CUB-100 was
        77.7 %, and 89.8 % at 224 px.
        """
        after, growing = epoch - self.head_epochs, self.all_epochs
        if not 0 <= after < growing:
            return self.size
        progress = min(1.0, after / max(1, 0.75 * growing))
        if self.start_size == 0 or progress == 1:
            return self.last_side
        side = self.start_size + progress * (self.last_side - self.start_size)
        return min(self.last_side, round(side / 32) * 32)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for run.json."""
        return {**asdict(self), "milestones": list(self.milestones)}

    def _relations(self) -> Iterator[tuple[str, bool, str]]:
        """Yield (name, whether it is valid, what is expected) of values that depend on others."""
        size, steps = self.size, self.milestones
        fits = self.batch_size * 3 * size**2 <= MAX_BATCH_BYTES
        yield "batch_size", fits, f"at most {MAX_BATCH_BYTES >> 30} GiB of pixels at size {size}"
        trains = self.train_size == 0 or 32 <= self.train_size <= size
        yield "train_size", trains, f"0, or 32 to size {size}"
        starts = self.start_size == 0 or 32 <= self.start_size <= self.last_side
        yield "start_size", starts, f"0, or 32 to the last side {self.last_side}"
        resizes = self.resize == 0 or size <= self.resize <= MAX_RESIZED
        yield "resize", resizes, f"0, or size {size} to {MAX_RESIZED}"
        yield "milestones", len(steps) <= MAX_MILESTONES, f"at most {MAX_MILESTONES}"
        are_epochs = all(0 <= epoch <= MAX_EPOCHS for epoch in steps)
        yield "milestones", are_epochs, f"epochs, 0 to {MAX_EPOCHS}"
        yield "milestones", list(steps) == sorted(set(steps)), "epochs in rising order"
        has_steps = bool(steps) == (self.schedule == "step")
        yield "milestones", has_steps, "epochs for schedule step, none for cosine"
        for name in ("head_epochs", "full_epochs"):
            own = getattr(self, name)
            fits = own == 0 or self.all_epochs > 0
            yield name, fits, f"with the other less than epochs {self.epochs}"
            yield name, own == 0 or self.schedule == "cosine", "0 with schedule step"
        yield "warmup_start", 0 <= self.warmup_start <= self.lr, f"0 to lr {self.lr}"
        areas = self.min_area <= self.max_area <= MAX_AREA
        yield "max_area", areas, f"min_area {self.min_area} to {MAX_AREA}"
        yield "pad", 0 <= self.pad <= size, f"0 to size {size}"
        pads = self.pad == 0 or self.augment == "pad-crop"
        yield "pad", pads, "0 unless augment is pad-crop"
        once = self.class_weights == "none" or self.sampling == "shuffle"
        yield "class_weights", once, "none with balanced sampling, which weighs the classes already"

    def _require(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            value = reprlib.repr(getattr(self, name))
            raise UsageError(f"recipe value {name} = {value}", expected=expected)


def read_recipe(name: str) -> Recipe:
    """Read a recipe by the name of a shipped one or the path of a TOML file.

    Raises:
        UsageError: no such recipe, not TOML, an unknown key (the nearest one is suggested), or a
            value of a wrong type or range.
    """
    return recipe_from(read_toml(name))


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain data; an absent key keeps its default.

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
