"""Any network of timm whose feature maps come from a chain of modules: `timm:NAME`.

timm's `features_only` says which maps a network offers and at which strides. A network qualifies
where timm computes them by running modules one after the other (most convolutional networks of
timm do). Its blocks keep timm's own module paths below `net`, so timm's weights fit as they are.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from timm.models import FeatureListNet
from torch import Tensor, nn

from finedge.errors import SystemProblem, UsageError
from finedge.spec import Method, Preprocess
from finedge.train.backbones.base import Backbone
from finedge.train.backbones.weights import State

PREFIX = "timm:"
PLACE = "net."  # of timm's modules in a backbone: some are named as attributes of a Backbone
VERSION = timm.__version__
NEAREST = 5  # names in an error; timm has about 1,400
DEPTH = 2  # levels of module names that timm flattens into the names of a chain
FIX = "choose a convolutional network, e.g. timm:resnet18 or timm:convnext_atto"


@dataclass(frozen=True)
class Outline:
    """What `features_only` says of a network.

    Attributes:
        chain: module paths in running order.
        stages: the last block before each change of stride, shallow to deep.
        channels: of each block's output.
    """

    chain: tuple[str, ...]
    stages: tuple[str, ...]
    channels: dict[str, int]


def timm_net(name: str) -> Backbone:
    """Build `timm:NAME` with random weights; NAME may have a tag, as `resnet18.a1_in1k`.

    Raises:
        UsageError: timm does not know the name, or its features are not those of a chain.
    """
    plan = outline(name)
    holder = nn.Module()
    holder.net = _create(name)
    keys = frozenset(holder.state_dict())
    _prune(holder, plan.chain)
    backbone = Backbone(
        name,
        net=holder,
        chain=plan.chain,
        stages=plan.stages,
        residual_ends=list(_residual_ends(holder, plan.chain)),
        channels=plan.channels,
    )
    backbone.prefix = PLACE
    backbone.left_out = keys - frozenset(backbone.state_dict())
    return backbone


def timm_preprocess(name: str, *, method: Method) -> Preprocess:
    """Return the sizes, mean and std that timm's weights of `timm:NAME` were trained with."""
    known = timm.get_pretrained_cfg(require_known(name))
    if known is None:
        return Preprocess(method=method)
    crop = known.input_size[1]
    resize = round(crop / known.crop_pct)
    mean, std = (tuple(float(x) for x in values) for values in (known.mean, known.std))
    return Preprocess(resize, crop, method, mean=mean, std=std)  # type: ignore[arg-type]


def has_weights(name: str) -> bool:
    """Tell whether timm knows where the weights of `timm:NAME` are."""
    known = timm.get_pretrained_cfg(require_known(name))
    return known is not None and known.has_weights


def timm_weights(name: str, backbone: nn.Module) -> State:
    """Return timm's pretrained tensors of `timm:NAME`, from its cache or the hub."""
    try:
        state = _create(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:  # no network, no such file, a damaged one
        raise SystemProblem(
            f"the weights of {name} could not be fetched: {error}",
            fix="fetch them on a machine with a network, and pass --weights FILE",
        ) from error
    own = backbone.state_dict()
    placed = {f"{PLACE}{key}": tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in placed.items() if key in own}


def require_known(name: str) -> str:
    """Return NAME of `timm:NAME`; one that timm does not know raises `UsageError`."""
    plain = name.removeprefix(PREFIX)
    base, _, tag = plain.partition(".")
    if not timm.is_model(base):
        close = difflib.get_close_matches(base, timm.list_models(), n=NEAREST, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"a name of timm {VERSION}"
        raise UsageError(f"timm has no network '{plain}'", expected=hint)
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights '{plain}'", expected=f"a tag of {', '.join(tags)}")
    return plain


@cache
def outline(name: str) -> Outline:
    """Return the chain of `timm:NAME`, from shapes alone (the meta device).

    Raises:
        UsageError: timm does not know the name, or its features are not those of a chain.
    """
    with torch.device("meta"):
        features, holder = _features(name), nn.Module()
        holder.net = _create(name).eval()
    chain = tuple(f"{PLACE}{block}" for block in _chain(name, features, holder.net))
    info: Any = features.feature_info
    ends = [_last_block(chain, f"{PLACE}{path}") for path in info.module_name()]
    side = timm_preprocess(name, method="cv2-antialias").crop
    channels = dict(_measured(name, holder, chain, side=side))
    for block, count in zip(ends, info.channels(), strict=True):
        if channels[block] != count:  # Swin and others: channels last
            raise _unfit(name, f"{block} does not put out [batch, {count}, height, width]")
    strides = zip(ends, info.reduction(), strict=True)
    return Outline(chain, tuple(end for end, stride in strides if stride > 1), channels)


def _create(name: str, *, pretrained: bool = False) -> nn.Module:
    plain = require_known(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names that timm changed
        net: nn.Module = timm.create_model(plain, pretrained=pretrained)
    return net


def _features(name: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            features: nn.Module = timm.create_model(require_known(name), features_only=True)
    # timm has no error type of its own: networks without `features_only` raise one of these.
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unfit(name, f"timm cannot build it with features_only ({reason})") from error
    return features


def _chain(name: str, features: nn.Module, net: nn.Module) -> Iterator[str]:
    """Yield the paths of the blocks in `net`, in running order, sequences taken apart."""
    if isinstance(features, FeatureListNet):
        paths = {path.replace(".", "_"): path for path in _paths(net)}
        tops: Sequence[str] = [paths[child] for child, _ in features.named_children()]
    elif type(features).__name__ in ("EfficientNetFeatures", "MobileNetV3Features"):
        tops = [top for top in ("conv_stem", "bn1", "act1", "blocks") if hasattr(net, top)]
    else:
        kind = type(features).__name__
        raise _unfit(name, f"timm reads its features inside the network ({kind})")
    for top in tops:
        yield from _blocks(net, top)


def _paths(net: nn.Module) -> Iterator[str]:
    """Yield the module paths of up to `DEPTH` levels; of two that flatten alike, the shorter."""
    paths = [path for path, _ in net.named_modules() if 0 <= path.count(".") < DEPTH]
    yield from sorted(filter(None, paths), key=lambda path: -path.count("."))


def _blocks(net: nn.Module, path: str) -> Iterator[str]:
    module = net.get_submodule(path)
    names = [child for child, _ in module.named_children()]
    if names and type(module).forward is nn.Sequential.forward:
        for child in names:
            yield from _blocks(net, f"{path}.{child}")
    else:
        yield path


def _last_block(chain: Sequence[str], path: str) -> str:
    """Return the last block that is at or in `path`."""
    return [block for block in chain if f"{block}.".startswith(f"{path}.")][-1]


@torch.no_grad()
def _measured(
    name: str, net: nn.Module, chain: Sequence[str], *, side: int
) -> Iterator[tuple[str, int]]:
    """Yield (block, channels of its output) of an image of `side` pixels on the meta device."""
    x: Tensor = torch.empty(1, 3, side, side, device="meta")
    for block in chain:
        try:
            x = net.get_submodule(block)(x)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise _unfit(name, f"{block} does not run alone ({error})") from error
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise _unfit(name, f"{block} does not put out one map [batch, channels, height, width]")
        yield block, x.shape[1]


def _prune(net: nn.Module, chain: Sequence[str]) -> None:
    """Remove the modules that no block of the chain needs: weights without a gradient."""
    needed = {block.rsplit(".", cut)[0] for block in chain for cut in range(block.count(".") + 1)}
    for path in [path for path, _ in net.named_modules() if path]:
        parent, _, child = path.rpartition(".")
        inside = parent == "" or (parent in needed and parent not in chain)
        if inside and path not in needed:
            delattr(net.get_submodule(parent), child)


def _residual_ends(net: nn.Module, chain: Sequence[str]) -> Iterator[str]:
    """Yield the last BatchNorm of the residual branches of timm's inverted residuals."""
    for block in chain:
        module = net.get_submodule(block)
        norm = "bn3" if hasattr(module, "bn3") else "bn2"
        if getattr(module, "has_skip", False) is True and hasattr(module, norm):
            yield f"{block}.{norm}"


def _unfit(name: str, reason: str) -> UsageError:
    return UsageError(
        f"{name} cannot be a backbone: {reason}",
        expected="feature maps [batch, channels, height, width] of modules run one after the other",
        fix=FIX,
    )
