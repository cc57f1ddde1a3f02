"""ONNX Runtime on the CPU: the backend that every machine has, and its INT8 arithmetic.

`backend.py` opens and runs the files of a bundle. `int8_products.py` measures whether INT8
products saturate on this CPU. It may import `backend`, `model_io` and `telemetry` of the runtime,
and `finedge.graph`. `finedge.runtime.backend` opens it by name; `export` and `calib` use its exact
sessions as a reference.
"""
