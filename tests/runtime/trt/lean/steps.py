"""Use TensorRT's lean runtime as our code does; print what happened as JSON.

Run by test_lean.py in a process of its own: `steps.py registry`, or `steps.py library`,
`autoload` or `engine` with a file.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import tensorrt_lean_bindings as trt
import tensorrt_lean_libs

from finedge.errors import FinedgeError
from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.plugin.register import register


def creator(namespace=OP.domain):
    return trt.get_plugin_registry().get_creator(OP.name, str(OP.version), namespace)


def described(item):
    """Return a creator as plain data, or None where there is none."""
    if item is None:
        return None
    return {"name": item.name, "version": item.plugin_version, "namespace": item.plugin_namespace}


def made(item):
    """Return what a plugin of the creator says about itself."""
    scale = trt.PluginField("scale", np.array([0.125], np.float32), trt.PluginFieldType.FLOAT32)
    fields = trt.PluginFieldCollection([scale])
    plugin = item.create_plugin("node", fields, trt.TensorRTPhase.RUNTIME)
    return type(plugin).__name__


def listed():
    creators = trt.get_plugin_registry().all_creators
    return sum(c.name == OP.name and c.plugin_namespace == OP.domain for c in creators)


def registry():
    before = described(creator())
    register(trt)
    once = listed()
    register(trt)
    return {
        "before": before,
        "after": described(creator()),
        "under ''": described(creator("")),
        "listed": [once, listed()],
        "plugin": made(creator()),
    }


def library(path):
    before = described(creator())
    handle = trt.get_plugin_registry().load_library(path)
    return {
        "before": before,
        "loaded": handle is not None,
        "after": described(creator()),
        "under ''": described(creator("")),
        "listed": [listed()],
        "plugin": made(creator()),
    }


def autoload(path):
    """Open the library that registers by itself, as DeepStream and Triton do."""
    before = described(creator())
    runtime = Path(tensorrt_lean_libs.__file__).parent / "libnvinfer_lean.so.11"
    ctypes.CDLL(str(runtime), ctypes.RTLD_GLOBAL)  # the library looks for its registry
    ctypes.CDLL(path)
    return {
        "before": before,
        "after": described(creator()),
        "under ''": described(creator("")),
        "listed": [listed()],
        "plugin": made(creator()),
    }


def engine(path):
    try:
        Engine.load(Path(path).read_bytes(), trt=trt, file="x.engine")
    except FinedgeError as error:
        return {"error": type(error).__name__, "text": str(error), "fix": error.fix}
    return {"error": None}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    steps = {"registry": registry, "library": library, "autoload": autoload, "engine": engine}
    print(json.dumps({"version": trt.__version__, **steps[name](*arguments)}))
