"""OpenVINO on the CPU: the same files as ONNX Runtime's, often faster on x86.

`library.py` loads the package without its reports. `backend.py` opens the files of a bundle, and
`session.py` runs them. The room may import `backend`, `model_io`, `machine` and `ort` of the
runtime, and `finedge.graph`. `finedge.runtime.backend` opens it by name.
"""
