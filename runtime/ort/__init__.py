"""ONNX Runtime: the backend that every machine has, its INT8 arithmetic, and the same on a GPU.

`session.py` is what both backends share. `backend.py` opens and runs the files of a bundle on the
CPU. `int8_products.py` measures whether INT8 products saturate on this CPU. `gpu` is a room of its
own, for NVIDIA's GPUs. The room may import `backend`, `model_io` and `telemetry` of the runtime,
and `finedge.graph`. `finedge.runtime.backend` opens it by name; `export` and `calib` use its exact
sessions as a reference.
"""
