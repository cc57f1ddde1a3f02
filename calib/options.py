"""The options of `finedge calibrate`, checked as they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from finedge.calib.plan import QuantizationPlan
from finedge.calib.ranges.collectors import COLLECTORS, check_methods
from finedge.errors import UsageError

AUTO = "auto"
# Images of the decision set. Fewer decide nothing: the 95 % interval of an agreement of 31 of 32
# is 84 to 99 %.
MIN_IMAGES = 32
CURVE = (16, 32, 64, 128, 256, 512)  # calibration images


@dataclass(frozen=True)
class Int8Options:
    """How the INT8 files are made.

    Attributes:
        images: how many training images to calibrate with, balanced over the classes.
        method: max keeps every value; percentile cuts off the largest 0.01 % of magnitudes; entropy
            keeps the histogram closest to the float one by KL divergence; mse has the least squared
            error; auto compares all of them with the float model on other training images.
        curve: also compare the method with itself for 16, 32, ... 512 calibration images.
        seed: chooses the images.
        decision_images: how many other training images decide between INT8 files, where there is
            something to decide.
        bias_correction: take the mean shift of each layer's output from its bias.
    """

    images: int = 256
    method: str = "max"
    curve: bool = False
    seed: int = 0
    decision_images: int = 256
    bias_correction: bool = True

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"--images {self.images}", expected="at least 1")

        if self.method != AUTO:
            check_methods((self.method,))
        if self.decision_images < MIN_IMAGES:
            raise UsageError(
                f"--decision-images {self.decision_images}", expected=f"at least {MIN_IMAGES}"
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The collectors whose ranges the pass must gather, the simplest first."""
        return tuple(COLLECTORS) if self.method == AUTO else (self.method,)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of images of the curve, and that of the files."""
        return (*CURVE, self.images) if self.curve else (self.images,)

    @property
    def decides(self) -> bool:
        """Whether an option needs the decision set."""
        return self.method == AUTO or self.curve

    @property
    def plan(self) -> QuantizationPlan:
        """The plan before anything is decided."""
        return QuantizationPlan(self.methods[0], bias_correction=self.bias_correction)


@dataclass(frozen=True)
class QatOptions:
    """Quantization-aware training before the calibration.

    Attributes:
        qat: the run that the bundle was exported from: train its model for a few epochs with INT8
            rounding, through nvidia-modelopt (extra [calib]). FP32 stays as it is.
        qat_epochs: passes over the training split.
        qat_lr: learning rate at the start; it falls to 0 along half a cosine.
    """

    qat: Path | None = None
    qat_epochs: int = 2
    qat_lr: float = 1e-4

    def __post_init__(self) -> None:
        if self.qat_epochs < 1:
            raise UsageError(f"--qat-epochs {self.qat_epochs}", expected="at least 1")
        if not 0 < self.qat_lr < math.inf:
            raise UsageError(f"--qat-lr {self.qat_lr}", expected="a positive number")


@dataclass(frozen=True)
class ConfidenceOptions:
    """How the confidence of each variant is fitted.

    Attributes:
        max_false_rejects: the largest share of right answers that may become "unknown". A larger
            share rejects more pictures of other things.
        exit_loss: for bundles with segments: the largest share of images whose right answer an
            early exit may lose, on validation images (`finedge.calib.held_out.exits`).
        label_tree: a JSON file with groups of classes, for a coarser answer where the class is
            unknown. Without it, the bundle's tree is fitted again, if it has one.
    """

    max_false_rejects: float = 0.05
    exit_loss: float = 0.0
    label_tree: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_false_rejects < 1:
            raise UsageError(
                f"--max-false-rejects {self.max_false_rejects}",
                expected="a share of the right answers, 0 <= share < 1",
            )
        if not 0 <= self.exit_loss < 1:
            raise UsageError(
                f"--exit-loss {self.exit_loss}",
                expected="a share of the images, 0 <= share < 1, e.g. 0.01",
            )
