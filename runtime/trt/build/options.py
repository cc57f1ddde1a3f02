"""What a user may choose about an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from finedge.bundle import FLOAT_FILE, HALF_FILE, PORTABLE_FILE
from finedge.errors import UsageError, nearest

Precision = Literal["fp32", "fp16", "int8", "int8-fp32"]
Attention = Literal["auto", "decomposed", "plugin"]
Typing = Literal["strong", "weak"]

# `int8` computes in float16 what is not quantised, `int8-fp32` in float32.
FILES: dict[str, str] = {
    "fp32": FLOAT_FILE,
    "fp16": HALF_FILE,
    "int8": PORTABLE_FILE,
    "int8-fp32": PORTABLE_FILE,
}
LOCAL = ("local",)


@dataclass(frozen=True)
class Profile:
    """The batch sizes an engine serves: from `min` to `max`, fastest at `opt`."""

    min: int = 1
    opt: int = 1
    max: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise UsageError(
                f"batch profile {self.min},{self.opt},{self.max}",
                expected="1 <= min <= opt <= max",
                fix="--batch 1,1,8",
            )

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Read "min,opt,max", or one number for all three."""
        try:
            sizes = [int(part) for part in text.split(",")]
            return (
                cls(*(sizes * 3 if len(sizes) == 1 else sizes)) if len(sizes) in (1, 3) else cls(0)
            )
        except ValueError:
            raise UsageError(
                f"batch profile '{text}'",
                expected="min,opt,max, or one number",
                fix="--batch 1,1,8",
            ) from None


@dataclass(frozen=True)
class BuildOptions:
    """How one engine is built.

    Attributes:
        precision: what it computes in; the file is `FILES[precision]`.
        attention: who computes cross-layer attention: TensorRT from standard ops, our plugin, or whichever suits (auto).
        profile: the batch sizes.
        workspace_mib: scratch memory a layer may use, in MiB.
        targets: `("local",)`, or compute capabilities such as `("sm86", "sm89")` (TensorRT for RTX only).
        typing: `strong` takes types from the graph; `weak` lets TensorRT before 10.12 choose by flags.
        debug_taps: the bundle's taps become outputs `tap/NAME`.
    """

    precision: Precision = "fp16"
    attention: Attention = "auto"
    profile: Profile = field(default_factory=Profile)
    workspace_mib: int = 1024
    targets: tuple[str, ...] = LOCAL
    typing: Typing = "strong"
    debug_taps: bool = False

    def __post_init__(self) -> None:
        for name, value, kinds in (
            ("precision", self.precision, Precision),
            ("attention", self.attention, Attention),
            ("typing", self.typing, Typing),
        ):
            if value not in get_args(kinds):
                raise UsageError(
                    f"unknown {name} '{value}'", expected=nearest(value, get_args(kinds))
                )
        if self.workspace_mib < 1:
            raise UsageError(f"workspace of {self.workspace_mib} MiB", expected="at least 1")
        if self.attention == "plugin" and not self.plugin_fits:
            raise UsageError(
                f"--attention plugin with precision {self.precision}",
                expected=PLUGIN_NEEDS,
                fix="--attention decomposed, or --precision fp16",
            )

    @property
    def file(self) -> str:
        """The bundle's file it is built from."""
        return FILES[self.precision]

    @property
    def plugin_fits(self) -> bool:
        """Whether the plugin's kernel, which takes float16, can be in this engine."""
        return self.precision in ("fp16", "int8")


PLUGIN_NEEDS = "fp16 or int8: the plugin's kernel takes float16"
