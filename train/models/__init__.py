"""Models behind one factory: `build(name, ...)`; `MODELS` is the whole list, one file a paper."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from finedge.errors import UsageError, nearest
from finedge.train.backbones import make
from finedge.train.models.attend_rectify import AttendRectify
from finedge.train.models.base import About, FineGrained
from finedge.train.models.clca_cga import CollaborativeAttention
from finedge.train.models.cnl import CrossLayer
from finedge.train.models.cs import CrossLayerSelfAttention
from finedge.train.models.gates import (
    ChannelAttention,
    ChannelSpatialAttention,
    FullyConvolutional,
    SpatialAttention,
)
from finedge.train.models.nl import NonLocal
from finedge.train.models.plain import Plain

__all__ = ["MODELS", "About", "FineGrained", "build", "entry", "names", "register"]

MODELS: dict[str, type[FineGrained]] = {}


def register(name: str, model: type[FineGrained]) -> None:
    """Add a model class; its constructor takes (backbone, num_classes, *, options). A name that is taken raises `UsageError`."""
    if name in MODELS:
        raise UsageError(
            f"the model name '{name}' is taken by {MODELS[name].__name__}", expected="a new name"
        )
    MODELS[name] = model


def names() -> tuple[str, ...]:
    """Return the names `build` knows."""
    return tuple(MODELS)


def entry(name: str) -> type[FineGrained]:
    """Return a model's class; an unknown name raises `UsageError` with the nearest one."""
    if name not in MODELS:
        raise UsageError(f"unknown model '{name}'", expected=nearest(name, MODELS))
    return MODELS[name]


def build(
    name: str, *, num_classes: int, backbone: str, weights: str = "none", **options: Any
) -> FineGrained:
    """Build a model.

    Args:
        name: one of `names()`.
        num_classes: number of labels, at least 2.
        backbone: one of `finedge.train.backbones.names()`.
        weights: of the backbone: `none`, `imagenet`, or the path of a file (see `finedge.train.backbones.make`).
        options: of the model; its `options` attribute holds all of them, so build(..., **model.options) makes it again.

    Raises:
        UsageError: unknown model, backbone, weights or option.
    """
    model: Callable[..., FineGrained] = entry(
        name
    )  # subclasses take (backbone, num_classes, *, options)
    if num_classes < 2:
        raise UsageError(f"{num_classes} classes", expected="at least 2")
    known = [
        p.name for p in inspect.signature(model).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise UsageError(
                f"model '{name}' has no option '{option}'", expected=nearest(option, known)
            )
    return model(make(backbone, weights=weights), num_classes, **options)


# Sorted by paper: the baseline, then 5, 4, 1, 2, 3 of the list in the README.
register("plain", Plain)
register("cnl", CrossLayer)
register("nl", NonLocal)
register("attend_rectify", AttendRectify)
register("cs", CrossLayerSelfAttention)
register("clca_cga", CollaborativeAttention)
register("fcn", FullyConvolutional)
register("ca", ChannelAttention)
register("sa", SpatialAttention)
register("csca", ChannelSpatialAttention)
