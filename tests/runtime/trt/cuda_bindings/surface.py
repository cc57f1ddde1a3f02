"""Print what a binding has of the names in the first argument (JSON), and what its calls answer.

Run by test_surface.py in a process of its own.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import warnings


def samples(api):
    """Return an argument by parameter name, of the type that our code passes."""
    return {
        "device": 0,
        "size": 16,
        "count": 16,
        "length": 32,
        "flags": int(api.cudaHostAllocMapped),
        "pHost": 4096,
        "ptr": 4096,
        "devPtr": 4096,
        "dst": 4096,
        "src": 8192,
        "stream": api.cudaStream_t(0),
        "graph": api.cudaGraph_t(0),
        "graphExec": api.cudaGraphExec_t(0),
        "kind": api.cudaMemcpyKind.cudaMemcpyHostToDevice,
        "mode": api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        "error": api.cudaError_t.cudaErrorInsufficientDriver,
    }


def answer(api, name, count):
    """Return how a call with `count` arguments ends: "status 35", or the name of an exception."""
    function = getattr(api, name)
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != count:
        return f"takes {parameters}"
    try:
        status, *_ = function(*(samples(api)[parameter] for parameter in parameters))
    except Exception as error:
        return type(error).__name__
    return f"status {int(status)}"


def main():
    warnings.simplefilter("error")
    wanted = json.loads(sys.argv[1])
    api = importlib.import_module("cuda.bindings.runtime")
    enums = [v for n in wanted["names"] if isinstance(v := getattr(api, n, None), type)]
    places = [api, *enums]
    properties = api.cudaDeviceProp()
    answers = {name: answer(api, name, count) for name, count in wanted["calls"]}
    result = {
        "file": api.__file__,
        "missing": [n for n in wanted["names"] if not any(hasattr(p, n) for p in places)],
        "facts": [n for n in wanted["facts"] if not hasattr(properties, n)],
        "answers": answers,
        "stream": int(api.cudaStream_t(1234)),
        "status": str(api.cudaGetErrorName(api.cudaError_t.cudaErrorInsufficientDriver)[1]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
