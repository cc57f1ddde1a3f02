"""The contract suites run on the tiny bundle of the runtime tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "tiny_bundle_fixtures", Path(__file__).parents[1] / "runtime" / "conftest.py"
)
_runtime = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _runtime  # its dataclasses look themselves up there
_spec.loader.exec_module(_runtime)

tiny_files, tiny_data, make_bundle, tiny_bundle, frames = (
    _runtime.tiny_files,
    _runtime.tiny_data,
    _runtime.make_bundle,
    _runtime.tiny_bundle,
    _runtime.frames,
)
