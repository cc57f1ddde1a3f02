"""The specification of a classifier: labels, preprocessing, input and outputs.

Every stage reads it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from finedge.errors import BundleError, UsageError
from finedge.schema import Constraint, Misfit, Text, at_most, between, decode

Method = Literal["pillow-bilinear", "pillow-bicubic", "cv2-area", "cv2-linear", "cv2-antialias"]
Rule = Literal["short-side", "squash"]
Pixels = Annotated[int, between(1, 16384, unit="pixels")]
Triple = tuple[float, float, float]
Name = Annotated[Text, Constraint(bool, "a name that is not empty")]
Labels = Annotated[tuple[Name, ...], at_most(1_000_000)]


@dataclass(frozen=True)
class Preprocess:
    """How a decoded frame becomes the network's input tensor.

    Attributes:
        resize: pixels of the short side (rule `short-side`) or of both sides (rule `squash`) after
            resizing.
        crop: pixels of the side of the square centre crop.
        method: library and filter of the resize (`finedge/preprocess.py`). `cv2-antialias` is the
            default of new trainings (`finedge/antialias.py`).
        rule: which side becomes `resize`.
        colour: the channel order.
        mean: per channel, for pixels in [0, 1]. It is part of the ONNX graph, so `preprocess()`
            never applies it.
        std: as `mean`.
        frame: (height, width) of whole frames where the graph also resizes and crops. Then
            `preprocess()` returns such frames as they are.
    """

    resize: Pixels = 256
    crop: Pixels = 224
    method: Method = "pillow-bilinear"
    rule: Rule = "short-side"
    colour: Literal["rgb"] = "rgb"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    frame: tuple[Pixels, Pixels] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise UsageError(
                f"crop {self.crop} with resize {self.resize}",
                expected="1 <= crop <= resize (pixels)",
            )
        for value, allowed in (
            (self.method, get_args(Method)),
            (self.rule, get_args(Rule)),
            (self.colour, ("rgb",)),
        ):
            if value not in allowed:
                raise UsageError(
                    f"unknown preprocessing value {value!r}",
                    expected=f"one of {', '.join(allowed)}",
                )
        if min(self.std) <= 0:
            raise UsageError(f"std {self.std}", expected="three positive numbers")
        if self.frame is not None and min(self.frame) < 1:
            raise UsageError(f"frame {self.frame}", expected="height and width, in pixels")

    def describe(self) -> str:
        """Return the preprocessing in one sentence, for logs and reports."""
        sides = "short side" if self.rule == "short-side" else "both sides"
        where = ""
        if self.frame is not None:
            where = f"in the graph, of {self.frame[1]} x {self.frame[0]} frames: "
        crop = f"{sides} to {self.resize} ({self.method}), centre crop {self.crop}"
        return f"{where}{crop}, {self.colour}, mean {self.mean}, std {self.std}"


@dataclass(frozen=True)
class Input:
    """The one input of the graph: uint8 [B, height, width, 3], RGB, values 0..255."""

    height: Pixels
    width: Pixels
    name: Name = "frames"
    dtype: Literal["uint8"] = "uint8"
    layout: Literal["NHWC"] = "NHWC"


@dataclass(frozen=True)
class Output:
    """One output of the graph: float32 [B, classes].

    The role `main` gives the answer; `local` outputs are intermediate predictions.
    """

    name: Name = "logits"
    kind: Literal["logits", "log_prob"] = "logits"
    role: Literal["main", "local"] = "main"


@dataclass(frozen=True)
class Spec:
    """Everything that a runtime needs to know about a classifier except its weights."""

    model: Text
    backbone: Text
    labels: Labels
    preprocess: Preprocess
    input: Input
    outputs: tuple[Output, ...] = (Output(),)

    def __post_init__(self) -> None:
        if not 0 < len(self.labels) == len(set(self.labels)):
            twice = Counter(self.labels).most_common(1)
            what = f"the label '{twice[0][0]}' appears twice" if twice else "no labels"
            raise UsageError(what, expected="one class or more, each with a different name")
        if sum(o.role == "main" for o in self.outputs) != 1:
            raise UsageError(
                f"outputs {[output.name for output in self.outputs]}",
                expected="exactly one output with role 'main'",
            )

    @property
    def main(self) -> Output:
        """The output that gives the answer."""
        return next(o for o in self.outputs if o.role == "main")

    def to_json(self) -> dict[str, Any]:
        """Return plain data for manifest.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Spec:
        """Read the data that `to_json` wrote.

        Raises:
            BundleError: the data do not fit, or hold a field of a newer version.
        """
        try:
            return decode(cls, data, at="spec", strict=True)
        except Misfit as error:
            raise BundleError(
                f"the spec does not fit this version of finedge: {error}",
                expected=error.expected,
                fix="update finedge, or export again",
            ) from error
