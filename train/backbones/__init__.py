"""The backbones, built by one factory, `make(name, weights=...)`.

`BACKBONES` lists those of finedge. `timm:NAME` is any network of timm that is a chain of modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from finedge.errors import UsageError, nearest
from finedge.spec import Method, Preprocess
from finedge.train.backbones.base import Backbone
from finedge.train.backbones.efficientnet_lite import efficientnet_lite, efficientnet_lite_s16
from finedge.train.backbones.mobilenet import mobilenetv2
from finedge.train.backbones.resnet import resnet
from finedge.train.backbones.timm_nets import (
    PREFIX,
    has_weights,
    timm_net,
    timm_preprocess,
    timm_weights,
)
from finedge.train.backbones.weights import WeightSource, lite_package, load, torchvision_hub
from finedge.train.backbones.wide_resnet import wide_resnet

__all__ = ["BACKBONES", "Backbone", "BackboneEntry", "entry", "make", "names"]

# The resize of new trainings. The packaged weights were trained with bicubic, torchvision's with
# bilinear. Fine-tuning adapts to this one, and a device computes it in a tenth of the time.
METHOD: Method = "cv2-antialias"


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone of the list.

    Attributes:
        build: builds it with random weights, from its name.
        preprocess: the sizes, mean and std that its weights were trained with, and METHOD.
        weights: its named weights, besides `none` and files.
        paper: where it comes from.
    """

    build: Callable[[str], Backbone]
    preprocess: Preprocess
    weights: dict[str, WeightSource]
    paper: str


def _resnet(*, v2: bool, paper: str = "arXiv 1512.03385") -> BackboneEntry:
    weights = {
        "imagenet": torchvision_hub("IMAGENET1K_V1"),
        **({"imagenet-v2": torchvision_hub("IMAGENET1K_V2")} if v2 else {}),
    }
    return BackboneEntry(resnet, Preprocess(method=METHOD), weights, paper)


def _lite(
    *, resize: int, crop: int, build: Callable[[str], Backbone] = efficientnet_lite
) -> BackboneEntry:
    # (pixel - 127) / 128: what the packaged weights were trained with.
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    preprocess = Preprocess(resize, crop, METHOD, mean=mean, std=std)
    paper = "EfficientNet-Lite (no paper); arXiv 1905.11946"
    return BackboneEntry(build, preprocess, {"imagenet": lite_package}, paper)


def _mobilenet() -> BackboneEntry:
    return BackboneEntry(mobilenetv2, Preprocess(method=METHOD), {}, "arXiv 1801.04381")


def _wide(*, dropout: float = 0.0) -> BackboneEntry:
    # Mean and standard deviation of CIFAR.
    mean = (125.3 / 255, 123.0 / 255, 113.9 / 255)
    std = (63.0 / 255, 62.1 / 255, 66.7 / 255)
    preprocess = Preprocess(32, 32, METHOD, mean=mean, std=std)
    build = partial(wide_resnet, dropout=dropout)
    return BackboneEntry(build, preprocess, {}, "arXiv 1605.07146")


BACKBONES: dict[str, BackboneEntry] = {
    "resnet18": _resnet(v2=False),
    "resnet34": _resnet(v2=False),
    "resnet50": _resnet(v2=True),
    "resnet101": _resnet(v2=True),
    "resnext50_32x4d": _resnet(v2=True, paper="arXiv 1611.05431"),
    "resnext101_32x8d": _resnet(v2=True, paper="arXiv 1611.05431"),
    "wide_resnet50_2": _resnet(v2=True, paper="arXiv 1605.07146"),
    "efficientnet_lite0": _lite(resize=256, crop=224),
    "efficientnet_lite1": _lite(resize=272, crop=240),
    "efficientnet_lite2": _lite(resize=292, crop=260),
    "efficientnet_lite0_s16": _lite(resize=256, crop=224, build=efficientnet_lite_s16),
    "mobilenetv2_035": BackboneEntry(
        mobilenetv2, Preprocess(method=METHOD), {}, "arXiv 1801.04381"
    ),
    "wrn_16_1": _wide(),
    "wrn_28_10": _wide(),
    "wrn_40_10": _wide(),
    "wrn_40_10_dropout": _wide(dropout=0.3),
}


def names() -> tuple[str, ...]:
    """Return the names of finedge's own list; `make` takes `timm:NAME` too."""
    return tuple(BACKBONES)


def entry(name: str) -> BackboneEntry:
    """Return the entry of a backbone; an unknown name raises `UsageError` with the nearest one."""
    if name.startswith(PREFIX):
        weights: dict[str, WeightSource] = {"imagenet": timm_weights} if has_weights(name) else {}
        preprocess = timm_preprocess(name, method=METHOD)
        return BackboneEntry(timm_net, preprocess, weights, "see timm")
    if name not in BACKBONES:
        expected = f"{nearest(name, BACKBONES)}, or {PREFIX}NAME of timm"
        raise UsageError(f"unknown backbone '{name}'", expected=expected)
    return BACKBONES[name]


def make(name: str, *, weights: str) -> Backbone:
    """Build a backbone.

    Args:
        name: one of `names()`, or `timm:NAME`.
        weights: `none` (random), a name in the entry's `weights`, or the path of a .safetensors or
            .pth file.

    Raises:
        UsageError: unknown backbone or weights, or a network of timm that is no chain.
        SystemProblem: the weights' package is missing, or the download failed.
        DataError: the file does not fit the backbone.
    """
    chosen = entry(name)
    backbone = chosen.build(name)
    load(backbone, weights, name=name, sources=chosen.weights)
    return backbone
