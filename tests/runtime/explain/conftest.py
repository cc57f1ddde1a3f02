"""Small bundles of every model, each exported once."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.export.to_onnx import to_onnx

collect_ignore_glob = [] if importlib.util.find_spec("jinja2") else ["test_*.py"]

EXPORTED: dict[str, tuple] = {}


@pytest.fixture
def make_bundle(make_model, tmp_path):
    """Export a model with weights as if trained; return `bundle` and the torch `model`."""

    def make(name="cnl", **changes):
        if name not in EXPORTED:
            model, spec = make_model(name=name, backbone="resnet18")  # exports in half the time
            graph, taps = to_onnx(model, spec)
            EXPORTED[name] = (model, spec, ir.to_proto(graph).SerializeToString(), taps)
        model, spec, content, taps = EXPORTED[name]
        views = changes.get("views", model.views)
        bundle = Bundle.create(
            tmp_path / f"{name}.finedge",
            spec,
            files={FLOAT_FILE: content},
            taps=taps,
            views=views,
            provenance={},
        )
        return SimpleNamespace(bundle=bundle, model=model)

    return make


@pytest.fixture
def frame():
    """A frame whose size is the network's input, so that nothing is resized."""
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
