"""ONNX Runtime on an NVIDIA GPU: the backend `onnxruntime-gpu`.

`providers.py` is the table of ONNX Runtime's execution providers and their options. `loading.py`
loads one. `probe.py` says why one cannot run here; `trial.py` tries it in another process.
`placement.py` reads which provider ran each node. `opening.py` opens a model, and refuses one that
ran on the CPU. `backend.py` opens a bundle's files.
"""
