"""Print what our probes answer with a binding: whether there is a GPU, and which backend runs.

Run by test_without_driver.py in a process of its own.
"""

from __future__ import annotations

import json

from finedge.jetson.doctor.facts import examine
from finedge.jetson.doctor.gpu import graphics, plugin_image
from finedge.runtime.backend import backend_names, get_backend, load_backend
from finedge.runtime.cuda.binding import binding
from finedge.runtime.cuda.gpu import gpu, why_no_gpu
from finedge.runtime.trt.backend import TensorRtBackend


def attempt(probe):
    """Return {"answer": ...}, or {"raised": ...} where it does not answer."""
    try:
        return {"answer": probe()}
    except BaseException as error:
        return {"raised": f"{type(error).__name__}: {error}"}


def main():
    probes = {
        "binding": lambda: binding().__file__,
        "gpu": gpu,
        "why_no_gpu": why_no_gpu,
        "TensorRtBackend.why_not": lambda: TensorRtBackend().why_not(),
        "every why_not": lambda: {n: load_backend(n).why_not() for n in backend_names()},
        "auto": lambda: get_backend("auto").name,
        "doctor graphics": graphics,
        "doctor plugin_image": lambda: plugin_image(graphics()[0]),
        "doctor": lambda: {k: v for k, v in examine().items() if k in ("gpu", "why_no_gpu")},
    }
    print(json.dumps({name: attempt(probe) for name, probe in probes.items()}))


if __name__ == "__main__":
    main()
