"""Tries one provider in a process of its own: `python -m finedge.runtime.ort.gpu.trial SHORT`.

The last line on stdout is JSON, `{"error": TEXT}` or `{"error": null}`; ONNX Runtime's own messages
are on stderr. A library that ends the process on a wrong driver ends this one only.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finedge.errors import SystemProblem
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.gpu.loading import apply, plugin_devices
from finedge.runtime.ort.gpu.placement import check_placement, profiled_nodes
from finedge.runtime.ort.gpu.providers import PROVIDERS, Provider
from finedge.runtime.ort.session import session_settings

if TYPE_CHECKING:
    import onnx

FRAME = (1, 3, 8, 8)


def try_provider(provider: Provider) -> None:
    """Load the provider; CUDA's also convolves. Those that build engines do no more: that is slow.

    Raises:
        Exception: ONNX Runtime's own, or a SystemProblem.
    """
    if provider.module:
        plugin_devices(provider)
    elif provider.builds_engines:
        _load(provider)
    else:
        _convolve(provider)


def _load(provider: Provider) -> None:
    import onnxruntime

    settings = session_settings(SessionOptions(threads=1))
    settings.log_severity_level = 2
    # Text is for the CPU alone: the provider is loaded, and there is nothing to build.
    content = _model("Identity", kind="STRING").SerializeToString()
    providers = apply(provider, settings, [(provider.name, {})])
    session = onnxruntime.InferenceSession(content, settings, providers, enable_fallback=0)
    _require(provider, session.get_providers())


def _convolve(provider: Provider) -> None:
    import onnxruntime

    settings = session_settings(SessionOptions(threads=1))
    content = _model("Conv", kind="FLOAT").SerializeToString()
    providers = apply(provider, settings, [(provider.name, {"device_id": "0"})])
    with tempfile.TemporaryDirectory() as folder:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "trial")
        session = onnxruntime.InferenceSession(content, settings, providers, enable_fallback=0)
        _require(provider, session.get_providers())
        frame = {"x": np.ones(FRAME, np.float32)}
        nodes = profiled_nodes(lambda: session.run(None, frame), session.end_profiling)
    check_placement(nodes, [provider.name], file="a convolution")


def _require(provider: Provider, loaded: list[str]) -> None:
    if provider.name not in loaded:
        raise SystemProblem(f"ONNX Runtime loaded {', '.join(loaded)} instead")


def _model(op: str, *, kind: str) -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    number = TensorProto.DataType.Value(kind)
    weights = numpy_helper.from_array(np.ones((4, FRAME[1], 3, 3), np.float32), "w")
    convolves = op == "Conv"
    node = helper.make_node(op, ["x", "w"] if convolves else ["x"], ["y"])
    source = helper.make_tensor_value_info("x", number, FRAME)
    answer = helper.make_tensor_value_info("y", number, None)
    stored = [weights] if convolves else []
    graph = helper.make_graph([node], "trial", [source], [answer], stored)
    # Old enough for every ONNX Runtime from 1.18 on.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main(short: str) -> None:
    """Try the provider with this short name, and print the outcome."""
    provider = next(provider for provider in PROVIDERS if provider.short == short)
    error = None
    try:
        try_provider(provider)
    except Exception as problem:  # ONNX Runtime's own exceptions share no base class
        error = f"{type(problem).__name__}: {problem}"
        if isinstance(problem, SystemProblem):
            error = str(problem)
    print(json.dumps({"error": error}))


if __name__ == "__main__":
    main(sys.argv[1])
