"""nvidia-modelopt's fake quantizers in a `TorchGraph`: in our places, and in no others.

modelopt decides by the names of modules and classes. So all of its quantizers are off at first;
those of our placement are switched on by name, and what is on is compared with the placement.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, cast

import torch
from torch import nn

from finedge.calib.qat.placement import Placement
from finedge.calib.qat.torch_graph import TorchGraph
from finedge.errors import FinedgeError, SystemProblem

WEIGHT: dict[str, Any] = {"num_bits": 8, "axis": 0}
"""One scale for each output channel, from the weight as it is: no fixed range."""
ACTIVATION: dict[str, Any] = {"num_bits": 8, "axis": None}


def add_fake_quantizers(graph: TorchGraph, placement: Placement) -> TorchGraph:
    """Put modelopt's quantizers into `graph`, in place: signed, symmetric, straight-through.

    Weights have one scale for each output channel. An activation has the range of `placement`.

    Raises:
        SystemProblem: modelopt is not installed, or cannot be imported.
        FinedgeError: modelopt's quantizers are not where the placement has them.
    """
    with _quiet():
        mtq, quantizer = _modelopt()
        graph = mtq.quantize(graph, {"quant_cfg": _config(graph, placement), "algorithm": None})
        # Only now: modelopt converts no layers of a module that holds a quantizer already.
        keys = {tensor: f"tensor_{index}" for index, tensor in enumerate(placement.amax)}
        graph.places.update({key: _activation_quantizer(quantizer) for key in keys.values()})
    graph.edges.update({edge: keys[tensor] for edge, tensor in placement.edges.items()})
    set_ranges(graph, placement.amax)
    _require_placement(graph, placement, quantizer)
    return graph


def set_ranges(graph: TorchGraph, amax: Mapping[str, float]) -> None:
    """Set the range of each quantized activation, in the order they were placed."""
    for value, place in zip(amax.values(), graph.places.values(), strict=True):
        place.amax = torch.tensor(value)


def modelopt_version() -> str:
    """Return the version of nvidia-modelopt."""
    return version("nvidia-modelopt")


def _config(graph: TorchGraph, placement: Placement) -> list[dict[str, Any]]:
    """Return modelopt's rules; a later rule wins."""
    weights = [f"layers.{graph.keys[name]}.weight_quantizer" for name in sorted(placement.weights)]
    return [
        {"quantizer_name": "*", "enable": False},
        *({"quantizer_name": name, "cfg": WEIGHT, "enable": True} for name in weights),
    ]


def _activation_quantizer(quantizer: type[nn.Module]) -> nn.Module:
    module: Any = quantizer()
    module.set_from_attribute_config(ACTIVATION)
    return cast(nn.Module, module)


def _require_placement(graph: TorchGraph, placement: Placement, quantizer: type[nn.Module]) -> None:
    wanted = {f"layers.{graph.keys[name]}.weight_quantizer" for name in placement.weights}
    wanted |= {f"places.{key}" for key in graph.places}
    modules = {n: m for n, m in graph.named_modules() if isinstance(m, quantizer)}
    enabled = {name for name, module in modules.items() if module.is_enabled}
    if enabled != wanted:
        different = sorted(enabled ^ wanted)
        raise FinedgeError(
            f"modelopt quantizes other places than ours: {', '.join(different[:5])}",
            expected=f"{len(wanted)} quantizers",
            fix="install nvidia-modelopt 0.47: pip install 'finedge[calib]'",
        )


def _modelopt() -> tuple[Any, type[nn.Module]]:
    try:
        import modelopt.torch.quantization as mtq
        from modelopt.torch.quantization.nn import TensorQuantizer
    except ImportError as error:
        raise SystemProblem(
            f"--qat needs nvidia-modelopt: {error}",
            expected="the extra [calib], on Python 3.11 or newer",
            fix="pip install 'finedge[calib]'",
        ) from error
    return mtq, TensorQuantizer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # modelopt prints its configuration on stdout, which belongs to our results, and warns that
    # there is no GPU.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
