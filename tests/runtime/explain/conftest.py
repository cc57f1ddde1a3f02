"""Small bundles of every model, each exported once."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from finedge.bundle import FLOAT_FILE, Bundle
from tests.small_models import SIZE, small_export, small_model

# A board has neither PyTorch, which makes the bundles of these tests, nor jinja2.
NEEDS = {
    "torch": ("test_command.py", "test_grid.py", "test_views.py"),
    "jinja2": ("test_command.py", "test_flips.py", "test_pictures.py"),
}
collect_ignore = [
    file for package, files in NEEDS.items() if find_spec(package) is None for file in files
]


def exported(name):
    """Return the torch model, its spec, its ONNX file's bytes and its taps."""
    choice = {"name": name, "backbone": "resnet18"}  # exports in half the time
    return *small_model(**choice), *small_export(**choice)


@pytest.fixture
def make_bundle(tmp_path):
    """Export a model with weights as if trained; return `bundle` and the torch `model`."""

    def make(name="cnl", **changes):
        model, spec, content, taps = exported(name)
        bundle = Bundle.create(
            tmp_path / f"{name}.finedge",
            spec,
            files={FLOAT_FILE: content},
            taps=taps,
            views=changes.get("views", model.views),
            provenance={},
        )
        return SimpleNamespace(bundle=bundle, model=model)

    return make


@pytest.fixture
def frame():
    """A frame whose size is the network's input, so that nothing is resized."""
    return np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
