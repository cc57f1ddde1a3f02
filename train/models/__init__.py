"""The models, built by one factory, `build_model`. `MODELS` is the whole list, one file a paper."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from finedge.errors import UsageError, nearest
from finedge.train.backbones import make
from finedge.train.models.attend_rectify import AttendRectify
from finedge.train.models.base import About, FineGrained
from finedge.train.models.clca_cga import CollaborativeAttention
from finedge.train.models.cnl import CrossLayer
from finedge.train.models.cs import CrossLayerSelfAttention
from finedge.train.models.gates import (
    ChannelGatedBackbone,
    ChannelSpatialGatedBackbone,
    FullyConvolutional,
    SpatialGatedBackbone,
)
from finedge.train.models.levels import Levels
from finedge.train.models.nl import NonLocal
from finedge.train.models.plain import Plain

__all__ = [
    "MODELS",
    "About",
    "FineGrained",
    "build_model",
    "default_options",
    "entry",
    "names",
    "register",
    "require_options",
]

MODELS: dict[str, type[FineGrained]] = {}


def register(name: str, model: type[FineGrained]) -> None:
    """Add a model class, whose constructor takes (backbone, num_classes, *, options).

    Raises:
        UsageError: the name is taken.
    """
    if name in MODELS:
        raise UsageError(
            f"the model name '{name}' is taken by {MODELS[name].__name__}", expected="a new name"
        )
    MODELS[name] = model


def names() -> tuple[str, ...]:
    """Return the names that `build_model` takes."""
    return tuple(MODELS)


def entry(name: str) -> type[FineGrained]:
    """Return a model's class; an unknown name raises `UsageError` with the nearest one."""
    if name not in MODELS:
        raise UsageError(f"unknown model '{name}'", expected=nearest(name, MODELS))
    return MODELS[name]


def default_options(name: str) -> dict[str, Any]:
    """Return {option: its default} of a model."""
    parameters = inspect.signature(entry(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def require_options(name: str, options: Iterable[str]) -> None:
    """Refuse names of options that a model does not have; `UsageError` has the nearest one."""
    known = default_options(name)
    for option in options:
        if option not in known:
            raise UsageError(
                f"model '{name}' has no option '{option}'", expected=nearest(option, known)
            )


def build_model(
    name: str, *, num_classes: int, backbone: str, weights: str = "none", **options: Any
) -> FineGrained:
    """Build a model on the CPU, in training mode.

    >>> model = build_model("cnl", num_classes=200, backbone="mobilenetv2_035").eval()
    >>> model(torch.zeros(1, 3, 224, 224))["logits"].shape
    torch.Size([1, 200])

    Args:
        name: one of `names()`.
        num_classes: number of labels, at least 2.
        backbone: one of `finedge.train.backbones.names()`.
        weights: of the backbone: `none`, `imagenet`, or the path of a file (see
            `finedge.train.backbones.make`).
        options: of the model. Its `options` attribute holds all of them, so that
            build_model(..., **model.options) builds the same model again.

    Raises:
        UsageError: unknown model, backbone, weights or option.
    """
    # Subclasses take (backbone, num_classes, *, options).
    model: Callable[..., FineGrained] = entry(name)
    if num_classes < 2:
        raise UsageError(f"{num_classes} classes", expected="at least 2")
    require_options(name, options)
    return model(make(backbone, weights=weights), num_classes, **options)


# The baseline first; then by paper.
register("plain", Plain)
# The control for models across layers: earlier maps without attention.
register("levels", Levels)
# CNL: Ye et al., ICIP 2020, arXiv 2005.09153. `nl` is the baseline that it compares with.
register("cnl", CrossLayer)
register("nl", NonLocal)
# Attend and Rectify: Rodriguez et al., ECCV 2018, arXiv 1807.07320; TMM 2019, arXiv 1907.13075.
register("attend_rectify", AttendRectify)
# CS network: Chen, Yu, Liang, ICCECE 2023.
register("cs", CrossLayerSelfAttention)
# Cross-layer collaborative and channel group attention: He Zhixiang et al., 2024, 33(3): 126-133.
register("clca_cga", CollaborativeAttention)
# Multi-attention fusion: Du and Ma. Four networks.
register("fcn", FullyConvolutional)
register("ca", ChannelGatedBackbone)
register("sa", SpatialGatedBackbone)
register("csca", ChannelSpatialGatedBackbone)
